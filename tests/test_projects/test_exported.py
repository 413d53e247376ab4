"""What is exported says what the model says, and runs in its place."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import nan

import numpy as np
import pytest
import torch
from mmaction.structures import ActionDataSample
from tiny_stmixer import ACTIONS, ROOT, write_model, write_video

from stmixer_mm.apis.inference import detect_video, init_detector
from stmixer_mm.compat import multiplies_bfloat16
from stmixer_mm.engine.speed import speed_up
from stmixer_mm.errors import UserError
from stmixer_mm.projects.export import formats
from stmixer_mm.projects.export.formats import (
    FORMATS,
    Metadata,
    format_of,
    load,
    write,
)
from stmixer_mm.projects.export.graph import in_float16, refused_by_tensorrt
from stmixer_mm.projects.export.parity import LIMITS, Parity, compare
from stmixer_mm.projects.export.tensors import Outputs, TensorDetector
from stmixer_mm.projects.export.traced import Traced
from stmixer_mm.projects.profiling.clips import ClipPipeline
from stmixer_mm.projects.profiling.models import build_model, read_config

for package in 'onnx', 'onnxscript', 'onnxruntime', 'openvino':
    pytest.importorskip(package)

SHAPE = (2, 32, 43)  # no multiple of the divisor, so that clips are padded
FORMATS_HERE = 'onnx', 'openvino', 'torch', 'inductor'


def about(batch=None, precision='fp32', shape=SHAPE):
    return Metadata('0.1', [*ACTIONS], [*shape], batch, 2, [0.0], [1.0], 0.3, precision)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('project'))


@pytest.fixture(scope='module')
def detector(project):
    options = {'model.head.score_thr': 0.3, 'model.head.fallback_topk': 1}
    model = init_detector(*project, cfg_options=options)
    return TensorDetector(model).eval()


@pytest.fixture(scope='module')
def traced(detector):
    return Traced(detector, SHAPE, None)


@pytest.fixture(scope='module')
def files(traced, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported')
    made = {}
    for name in FORMATS_HERE:
        made[name] = folder / f'{name}{FORMATS[name].suffix}'
        write(traced, about(), made[name], FORMATS[name])
    return made


# Loads files and forgets them, the first one first; then somebody presses Ctrl-C.
INTERRUPTED = """
import signal
import sys
from stmixer_mm.projects.export.formats import load

loaded = [load(file) for file in 2 * sys.argv[1:]]
while loaded:
    del loaded[0]
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print('interrupted')
"""


def predict(model, clips):
    samples = [ActionDataSample() for _ in clips]
    return model.test_step(dict(inputs=[*clips], data_samples=samples))


def random_clips(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randint(
        0, 256, (number, 3, *SHAPE), dtype=torch.uint8, generator=generator
    )


@pytest.mark.parametrize('name', FORMATS_HERE)
def test_a_file_says_what_the_model_says_of_any_number_of_clips(name, files, detector):
    run, metadata = load(files[name])
    assert metadata.classes == [*ACTIONS]
    assert metadata.outputs == [*Outputs._fields]
    for number in 1, 2, 5:
        parity = compare(detector, run, random_clips(number))
        assert parity.clips == number
        assert max(parity.person_scores, parity.action_scores) < 1e-5
        assert parity.pixels < 1e-2
        assert parity.kept == parity.agreed


@pytest.mark.parametrize('name', FORMATS_HERE)
def test_a_file_runs_in_many_threads(name, files):
    run, _ = load(files[name])
    clips = random_clips(5).split(1)
    expected = [run(clip.numpy()) for clip in clips]
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(run, [clip.numpy() for clip in clips] * 4)
        for one, other in zip(found, expected * 4, strict=True):
            for values, same in zip(one, other, strict=True):
                np.testing.assert_allclose(values, same, atol=1e-5)


def test_signals_arrive_when_what_ran_a_file_is_gone(files):
    program = subprocess.run(
        [sys.executable, '-c', INTERRUPTED, *map(str, files.values())],
        capture_output=True,
        text=True,
    )
    assert (program.returncode, program.stdout) == (0, 'interrupted\n'), program.stderr


@pytest.mark.parametrize(
    ('name', 'precision'),
    [
        (name, precision)
        for name in ('onnx', 'openvino', 'torch')
        for precision in FORMATS[name].precisions
        if precision != 'fp32'
    ],
)
def test_lower_precision_is_another_and_near(
    name, precision, detector, traced, tmp_path
):
    file = tmp_path / f'low{FORMATS[name].suffix}'
    calibration = [clip.numpy() for clip in random_clips(4).split(1)]
    metadata = about(precision=precision)
    write(traced, metadata, file, FORMATS[name], calibration=calibration)
    run, read = load(file)
    assert read == metadata
    parity = compare(detector, run, random_clips(4))
    rounds_here = precision != 'bf16' or multiplies_bfloat16('cpu')
    assert (parity.action_scores > 1e-7) or not rounds_here
    assert parity.is_met(LIMITS[precision])


def test_only_products_lose_precision(files):
    import onnx

    model = in_float16(onnx.load(files['onnx']))
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {each.name: each for each in model.graph.initializer}
    half = onnx.TensorProto.FLOAT16
    for node in model.graph.node:
        if node.op_type in ('Softmax', 'LayerNormalization', 'Pow', 'Exp', 'Sigmoid'):
            casts = [makers[name] for name in node.input if name in makers]
            types = [
                attribute.i
                for cast in casts
                if cast.op_type == 'Cast'
                for attribute in cast.attribute
            ]
            assert half not in types
            assert all(
                weights[name].data_type != half
                for name in node.input
                if name in weights
            )
    products = [node for node in model.graph.node if node.op_type in ('Conv', 'MatMul')]
    assert len(products) > 10
    for node in products:
        assert all(
            weights[name].data_type == half for name in node.input if name in weights
        )


def test_what_tensorrt_refuses_is_named(files):
    import onnx

    model = onnx.load(files['onnx'])
    assert refused_by_tensorrt(model) == []
    model.graph.node[0].op_type = 'Unique'
    model.graph.node[1].domain = 'com.microsoft'
    operator = model.graph.node[1].op_type
    sampling = [node for node in model.graph.node if node.op_type == 'GridSample']
    for value in model.graph.value_info:
        if value.name == sampling[0].input[0]:
            value.type.tensor_type.shape.dim.add()
    assert refused_by_tensorrt(model) == [
        'GridSample of volumes',
        'Unique',
        f'com.microsoft::{operator}',
    ]


def test_a_file_tells_nothing_of_the_machine_that_wrote_it(files):
    for file in files['onnx'], files['openvino'], files['openvino'].with_suffix('.bin'):
        assert str(ROOT).encode() not in file.read_bytes()


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


def test_tubelets_are_exported(tmp_path):
    config = ROOT / 'configs' / 'experiments' / 'stmixer-t_tiny-bifpn3d_toy.py'
    options = {'model.head.score_thr': 0.0}
    torch.manual_seed(0)
    model = init_detector(config, None, cfg_options=options)
    shape = [ClipPipeline(model.cfg, 'test').clip_len, 64, 64]
    detector = TensorDetector(model).eval()
    file = tmp_path / 'tubelets.pt2'
    metadata = replace(about(shape=shape), classes=None, tubelets=True)
    write(Traced(detector, shape, None), metadata, file, FORMATS['torch'])
    exported = init_detector(config, file, cfg_options=options)
    clips = torch.randint(0, 256, (3, 3, *shape), dtype=torch.uint8)
    for one, other in zip(predict(exported, clips), predict(model, clips), strict=True):
        found, expected = one.pred_instances, other.pred_instances
        assert found.bboxes.shape == (*found.person_scores.shape, 4)
        for name in ('bboxes', 'person_scores', 'scores', 'tubelet_scores'):
            torch.testing.assert_close(
                found[name], expected[name], atol=1e-5, rtol=1e-4
            )


def test_the_part_that_cannot_be_traced_is_named(detector, tmp_path):
    def branch(module, args, output):
        return output if output.sum() > 0 else -output

    traced = Traced(detector, SHAPE, 1)
    traced.detector.model.neck.projections[0].register_forward_hook(branch)
    with pytest.raises(
        UserError, match=r'exported to .pt2 \(model\.neck\.projections\.0: .*data'
    ):
        write(traced, about(1), tmp_path / 'tiny.pt2', FORMATS['torch'])
    assert not [*tmp_path.iterdir()]


def test_a_precision_that_a_format_has_not_is_refused():
    with pytest.raises(UserError, match=r'pt2 files .* not in int8; .* fp32 or bf16'):
        FORMATS['torch'].check_precision('int8')


def test_what_a_backbone_keeps_of_its_first_call_stays_real(tmp_path):
    """Swin3D keeps the masks of its windows."""
    config = ROOT / 'configs' / 'experiments' / 'stmixer_tiny-swin3d_toy.py'
    torch.manual_seed(0)
    detector = TensorDetector(build_model(read_config(config))).eval()
    clips = torch.randint(0, 256, (1, 3, 4, 64, 64), dtype=torch.uint8)
    file = tmp_path / 'swin.pt2'
    shape = [4, 64, 64]
    write(Traced(detector, shape, 1), about(1, shape=shape), file, FORMATS['torch'])
    parity = compare(detector, load(file)[0], clips)
    assert max(parity.person_scores, parity.action_scores) < 1e-5


@pytest.mark.parametrize('name', FORMATS_HERE)
def test_a_file_runs_in_the_place_of_a_checkpoint(name, files, project, detector):
    options = {'model.head.score_thr': 0.3, 'model.head.fallback_topk': 1}
    exported = init_detector(project[0], files[name], cfg_options=options)
    exported = speed_up(exported)  # nothing is left to do
    assert [*exported.parameters()]  # else DistributedDataParallel refuses it
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


@pytest.fixture(scope='module')
def traced_for_any_size(detector):
    return Traced(detector, (2, 40, 53), None, any_size=True)


@pytest.mark.parametrize('name', ['onnx', 'openvino', 'torch'])
def test_a_file_for_any_height_and_width(
    name, traced_for_any_size, detector, project, tmp_path
):
    file = tmp_path / f'any{FORMATS[name].suffix}'
    metadata = about(shape=(2, None, None))
    write(traced_for_any_size, metadata, file, FORMATS[name])
    run, metadata = load(file)
    assert metadata.shape == [2, None, None]
    clips = [
        torch.randint(0, 256, (number, 3, 2, *size), dtype=torch.uint8)
        for number, size in enumerate([(33, 90), (64, 64), (101, 40)], start=1)
    ]
    for some in clips:
        parity = compare(detector, run, some)
        assert max(parity.person_scores, parity.action_scores) < 1e-5
        assert parity.pixels < 1e-3

    model = init_detector(project[0], file)
    mixed = [clip for some in clips for clip in some]
    alone = [predict(model, clip[None])[0] for clip in mixed]
    for one, other in zip(predict(model, mixed), alone, strict=True):
        torch.testing.assert_close(
            one.pred_instances.bboxes, other.pred_instances.bboxes
        )
    with pytest.raises(UserError, match=r'2x32x50 .* takes 2x≥33x≥33;'):
        predict(model, torch.zeros(1, 3, 2, 32, 50, dtype=torch.uint8))


def test_an_engine_is_for_one_height_and_width(traced_for_any_size, tmp_path):
    with pytest.raises(UserError, match=r'one height and width.*export for one'):
        write(
            traced_for_any_size,
            about(shape=(2, None, None)),
            tmp_path / 'any.engine',
            FORMATS['tensorrt'],
        )


def test_a_file_for_one_clip_takes_them_one_by_one(project, detector, tmp_path):
    file = tmp_path / 'one.onnx'
    write(Traced(detector, SHAPE, 1), about(1), file, FORMATS['onnx'])
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


@pytest.mark.parametrize('name', FORMATS_HERE)
@pytest.mark.parametrize('content', [b'', b'text', 'half', 'checkpoint'])
def test_damaged_files_are_one_sentence(
    name, content, files, project, tmp_path, caplog
):
    suffix = FORMATS[name].suffix
    file = tmp_path / f'damaged{suffix}'
    whole = files[name].read_bytes()
    contents = dict(half=whole[: len(whole) // 2], checkpoint=project[1].read_bytes())
    file.write_bytes(contents.get(content, content))
    with pytest.raises(UserError, match=f'{file.name} cannot be loaded .*anew'):
        init_detector(project[0], file)
    with pytest.raises(UserError, match=f'gone{suffix} does not exist'):
        init_detector(project[0], tmp_path / f'gone{suffix}')
    assert not caplog.records


@pytest.mark.parametrize(
    'said',
    [
        None,
        'text',
        '{}',
        dict(shape='abc'),
        dict(shape=[2, 32]),
        dict(shape=None),
        dict(batch=-1),
        dict(batch='1'),
        dict(classes=5),
        dict(classes=[1, 2]),
        dict(colour='red'),
    ],
)
def test_files_of_others_are_one_sentence(said, files, project, tmp_path):
    import onnx

    model = onnx.load(files['onnx'])
    (entry,) = model.metadata_props
    if isinstance(said, dict):
        said = json.dumps(json.loads(entry.value) | said)
    if said is None:
        del model.metadata_props[:]
    else:
        entry.value = said
    onnx.save(model, tmp_path / 'other.onnx')
    with pytest.raises(UserError, match=r'other\.onnx .* lacks what tools/export\.py'):
        init_detector(project[0], tmp_path / 'other.onnx')


def test_another_openvino_model_is_refused(project, tmp_path):
    import openvino
    from openvino import opset13

    model = openvino.Model([opset13.constant(np.zeros(1, np.float32))], [], 'other')
    openvino.save_model(model, tmp_path / 'other.xml')
    with pytest.raises(UserError, match=r'other\.xml .* lacks what tools/export\.py'):
        init_detector(project[0], tmp_path / 'other.xml')


def test_the_config_of_another_kind_of_model_is_refused(files):
    configs = ROOT / 'configs'
    tubelets = configs / 'stmixer' / 'stmixer-t_tiny_1xb8-4x3x1_toy.py'
    with pytest.raises(UserError, match=r'finds keyframes, but .* model of tubelets'):
        init_detector(tubelets, files['onnx'])
    two_stages = configs / 'roi' / 'roi_tiny_1xb8-4x3x1_toy.py'
    with pytest.raises(UserError, match=r'an exported STMixer, but .* of a '):
        init_detector(two_stages, files['onnx'])


def test_query_vectors_come_on_request(files, project):
    model = init_detector(project[0], files['torch'])
    (sample,) = predict(model, random_clips(1))
    assert 'query_vectors' in sample.pred_instances
    model.with_query_vectors = False
    (sample,) = predict(model, random_clips(1))
    assert 'query_vectors' not in sample.pred_instances


def test_no_more_clips_at_once_than_an_engine_takes(files, project):
    model = init_detector(project[0], files['torch'])
    run, counts = model.run, []

    def counted(clips):
        counts.append(len(clips))
        return run(clips)

    model.run = counted
    assert len(predict(model, random_clips(35))) == 35
    assert counts == [16, 16, 3]


def test_another_number_of_actions_is_refused(files, project):
    with pytest.raises(UserError, match=r'has 2 actions, but num_classes=5 .* for 4'):
        init_detector(
            project[0], files['onnx'], cfg_options={'model.head.num_classes': 5}
        )


def test_a_label_map_of_other_actions_is_refused(files, project, tmp_path):
    label_map = tmp_path / 'five.pbtxt'
    label_map.write_text(
        ''.join(f'item {{\n  name: "a{n}"\n  id: {n}\n}}\n' for n in range(1, 6))
    )
    for weights in files['onnx'], project[1]:
        with pytest.raises(UserError, match=r'five\.pbtxt names 5 actions, .* has 2;'):
            init_detector(project[0], weights, label_map=label_map)


def test_a_missing_package_is_named(files, project, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match=r"onnxruntime .*pip install '.*\[export\]'"):
        init_detector(project[0], files['onnx'])


def test_what_is_not_exported_is_named():
    with pytest.raises(UserError, match='but this is Linear; give'):
        TensorDetector(torch.nn.Linear(1, 1))
    images = build_model(read_config('stmixer_tiny_1xb8-60e_toy-coco'))
    with pytest.raises(UserError, match='but this is StillImageSTMixer; give'):
        TensorDetector(images)


def test_only_exported_files_replace_a_checkpoint():
    names = 'a.onnx', 'a.xml', 'a.XML', 'a.pt2', 'a.engine', 'a.pth', None
    assert [bool(format_of(name)) for name in names] == [True] * 5 + [False] * 2


def test_what_differs_too_much_is_not_met():
    same = Parity(1, 0.0, 0.0, 0.0, kept=3, agreed=3)
    assert same.is_met(LIMITS['fp32'])
    for worse in dict(person_scores=2e-3), dict(action_scores=2e-3), dict(pixels=0.6):
        assert not same._replace(**worse).is_met(LIMITS['fp32'])
        assert not same._replace(**dict.fromkeys(worse, nan)).is_met(LIMITS['fp16'])
        assert same._replace(**worse).is_met(LIMITS['fp16'])
