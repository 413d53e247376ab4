"""What is exported says what the model says, and runs in its place."""

import json
import sys

import numpy as np
import pytest
import torch
from mmaction.structures import ActionDataSample
from tiny_stmixer import ACTIONS, ROOT, write_model, write_video

from stmixer_mm.apis.inference import detect_video, init_detector
from stmixer_mm.engine.speed import speed_up
from stmixer_mm.errors import UserError
from stmixer_mm.export import formats
from stmixer_mm.export.formats import FORMATS, Metadata, is_exported, load, write
from stmixer_mm.export.parity import LIMITS, Parity, compare
from stmixer_mm.export.tensors import Outputs, TensorDetector
from stmixer_mm.profiling.models import build_model, read_config

for package in 'onnx', 'onnxscript', 'onnxruntime', 'openvino':
    pytest.importorskip(package)

SHAPE = (2, 32, 43)  # no multiple of the divisor, so that clips are padded


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('project'))


@pytest.fixture(scope='module')
def detector(project):
    options = {'model.head.score_thr': 0.3, 'model.head.fallback_topk': 1}
    model = init_detector(*project, cfg_options=options)
    return TensorDetector(model, SHAPE[1:]).eval()


@pytest.fixture(scope='module')
def files(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported')
    metadata = Metadata('0.1', [*ACTIONS], [*SHAPE], None, 2, [0.0], [1.0], 0.3)
    made = {}
    for name, form in FORMATS.items():
        made[name] = folder / f'tiny{form.suffix}'
        write(detector, metadata, made[name])
    return made


def predict(model, clips):
    samples = [ActionDataSample() for _ in clips]
    return model.test_step(dict(inputs=[*clips], data_samples=samples))


def random_clips(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randint(
        0, 256, (number, 3, *SHAPE), dtype=torch.uint8, generator=generator
    )


@pytest.mark.parametrize('name', FORMATS)
def test_a_file_says_what_the_model_says_of_any_number_of_clips(name, files, detector):
    run, metadata = load(files[name])
    assert metadata.classes == [*ACTIONS]
    assert metadata.outputs == [*Outputs._fields]
    for number in 1, 2, 5:
        parity = compare(detector, run, random_clips(number))
        assert max(parity[:2]) < 1e-5
        assert parity.pixels < 1e-2
        assert parity.kept == parity.agreed


def test_the_model_in_tensors_predicts_as_the_model(detector):
    """The preprocessor's padding and the head's choice included."""
    model = detector.model
    clips = random_clips(2)
    with torch.no_grad():
        outputs = Outputs(*detector(clips))
    samples = predict(model, clips)
    for clip, sample in enumerate(samples):
        found = sample.pred_instances
        keep = [
            (outputs.query_vectors[clip] - vector).abs().sum(dim=-1).argmin()
            for vector in found.query_vectors
        ]
        for name, ours in (
            ('person_scores', found.person_scores),
            ('action_scores', found.scores[:, 1:]),
            ('bboxes', found.bboxes),
        ):
            theirs = getattr(outputs, name)[clip][torch.stack(keep)]
            torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


def test_what_a_backbone_keeps_of_its_first_call_stays_real(tmp_path):
    """Swin3D keeps the masks of its windows."""
    config = ROOT / 'configs' / 'experiments' / 'stmixer_tiny-swin3d_toy.py'
    torch.manual_seed(0)
    detector = TensorDetector(build_model(read_config(config)), (64, 64)).eval()
    clips = torch.randint(0, 256, (1, 3, 4, 64, 64), dtype=torch.uint8)
    file = tmp_path / 'swin.pt2'
    write(detector, Metadata('0.1', None, [4, 64, 64], 1, 3, [0.0], [1.0], 0.6), file)
    parity = compare(detector, load(file)[0], clips)
    assert max(parity[:2]) < 1e-5


@pytest.mark.parametrize('name', ['onnx', 'openvino'])
def test_a_file_runs_in_the_place_of_a_checkpoint(name, files, project, detector):
    options = {'model.head.score_thr': 0.3, 'model.head.fallback_topk': 1}
    exported = init_detector(project[0], files[name], cfg_options=options)
    exported = speed_up(exported)  # nothing is left to do
    assert exported.classes == [*ACTIONS]
    video = write_video(project[0].parent / 'new.mp4', size=(64, 48))
    for batch_size in 1, 3:
        found, expected = (
            [*detect_video(model, video, interval_s=0.5, batch_size=batch_size)]
            for model in (exported, detector.model)
        )
        assert len(found) == len(expected) > 2
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.bboxes, other.bboxes, atol=1e-3)
            np.testing.assert_allclose(
                one.person_scores, other.person_scores, atol=1e-5
            )


def test_a_file_for_one_clip_takes_them_one_by_one(project, detector, tmp_path):
    file = tmp_path / 'one.onnx'
    write(detector, Metadata('0.1', None, [*SHAPE], 1, 2, [0.0], [1.0], 0.3), file)
    model = init_detector(project[0], file)
    clips = random_clips(3)
    together, alone = predict(model, clips)[1], predict(model, clips[1:2])[0]
    torch.testing.assert_close(
        together.pred_instances.bboxes, alone.pred_instances.bboxes
    )


def test_the_file_says_what_it_is(files):
    import onnx

    (entry,) = onnx.load(files['onnx']).metadata_props
    assert entry.key == formats.KEY
    assert Metadata(**json.loads(entry.value)).shape == [*SHAPE]


def test_clips_of_another_shape_are_refused(files, project):
    model = init_detector(project[0], files['onnx'])
    with pytest.raises(UserError, match=r'2x32x50 .* takes 2x32x43; .*--shape'):
        predict(model, torch.zeros(1, 3, 2, 32, 50, dtype=torch.uint8))
    with pytest.raises(UserError, match="for prediction, not for 'loss'"):
        model([], [], mode='loss')


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
@pytest.mark.parametrize('content', [b'', b'text', None])
def test_damaged_files_are_one_sentence(suffix, content, files, project, tmp_path):
    file = tmp_path / f'damaged{suffix}'
    whole = files[{'.onnx': 'onnx', '.xml': 'openvino'}[suffix]].read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=f'{file.name} cannot be loaded .*anew'):
        init_detector(project[0], file)
    with pytest.raises(UserError, match=f'gone{suffix} does not exist'):
        init_detector(project[0], tmp_path / f'gone{suffix}')


def test_another_number_of_actions_is_refused(files, project):
    with pytest.raises(UserError, match=r'has 2 actions, but .* num_classes=5'):
        init_detector(
            project[0], files['onnx'], cfg_options={'model.head.num_classes': 5}
        )


def test_a_missing_package_is_named(files, project, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match=r"onnxruntime .*pip install '.*\[export\]'"):
        init_detector(project[0], files['onnx'])


def test_what_is_not_exported_is_named(project):
    losses = dict(
        loss_mask=dict(type='mmdet.FocalLoss', use_sigmoid=True),
        loss_dice=dict(type='mmdet.DiceLoss'),
    )
    masks = dict(type='QueryMaskHead', num_levels=2, **losses)
    model = init_detector(project[0], None, cfg_options={'model.mask_head': masks})
    with pytest.raises(UserError, match='mask_head, which is not exported'):
        TensorDetector(model, (32, 32))
    with pytest.raises(UserError, match='but this is Linear with NoneType'):
        TensorDetector(torch.nn.Linear(1, 1), (32, 32))


def test_only_files_of_other_runtimes_replace_a_checkpoint():
    names = 'a.onnx', 'a.xml', 'a.XML', 'a.pt2', 'a.pth', None
    assert [*map(is_exported, names)] == [True, True, True, False, False, False]


def test_what_differs_too_much_is_not_met():
    same = Parity(0.0, 0.0, 0.0, kept=3, agreed=3)
    assert same.is_met(LIMITS[False])
    for worse in dict(person_scores=2e-3), dict(action_scores=2e-3), dict(pixels=0.6):
        assert not same._replace(**worse).is_met(LIMITS[False])
        assert same._replace(**worse).is_met(LIMITS[True])
