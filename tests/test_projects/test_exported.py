"""Exported files give the results of their model, and run in its place."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import nan

import numpy as np
import pytest
import torch
from bad_input import read_table
from detections import assert_same_keyframes
from mmaction.structures import ActionDataSample
from tiny_stmixer import ACTIONS, ROOT, write_project, write_video
from torch import nn

from stmixer_mm.apis import detect_video, init_detector
from stmixer_mm.errors import UserError
from stmixer_mm.projects.export.formats import FORMATS, load, write
from stmixer_mm.projects.export.metadata import Metadata
from stmixer_mm.projects.export.parity import LIMITS, Parity, compare, is_within
from stmixer_mm.projects.export.tensors import Outputs, TensorDetector
from stmixer_mm.projects.export.traced import Traced

for package in 'onnx', 'onnxscript', 'onnxruntime', 'openvino':
    pytest.importorskip(package)

SMALL = """
_base_ = 'tiny.py'
model = dict(
    backbone=dict(
        num_stages=2, stage_blocks=(1, 1), out_indices=(0, 1), spatial_strides=(1, 2),
        temporal_strides=(1, 1), dilations=(1, 1), inflate=(0, 1),
    ),
    neck=dict(in_channels=[4, 8]),
    decoder=dict(num_stages=1),
)
"""
SHAPE = (2, 32, 43)  # no multiple of the divisor, so that clips are padded
OPTIONS = {'model.head.score_thr': 0.3, 'model.head.fallback_topk': 1}


def about(batch=None, precision='fp32', shape=SHAPE):
    shape = [*shape]
    return Metadata(classes=[*ACTIONS], shape=shape, batch=batch, precision=precision)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    config = write_project(tmp_path_factory.mktemp('project')).with_name('small.py')
    config.write_text(SMALL)
    checkpoint = config.with_suffix('.pth')
    torch.save(init_detector(config, None).state_dict(), checkpoint)
    return config, checkpoint


@pytest.fixture(scope='module')
def detector(project):
    model = init_detector(*project, cfg_options=OPTIONS)
    for stage in model.decoder.stages:  # otherwise all boxes stay the whole frame
        nn.init.normal_(stage.box_branch[-1].weight, std=0.1)
    return TensorDetector(model).eval()


@pytest.fixture(scope='module')
def traced(detector):
    return Traced(detector, SHAPE, None)


@pytest.fixture(scope='module')
def exported(traced, tmp_path_factory):
    """Writes a file, once, of a format."""
    folder, files = tmp_path_factory.mktemp('exported'), {}

    def export(name):
        if name not in files:
            files[name] = folder / f'{name}{FORMATS[name].suffix}'
            write(traced, about(), files[name], FORMATS[name])
        return files[name]

    return export


def predict(model, clips):
    samples = [ActionDataSample() for _ in clips]
    return model.test_step(dict(inputs=[*clips], data_samples=samples))


def assert_same(samples, expected, *names):
    for sample, other in zip(samples, expected, strict=True):
        for name in names:
            values = sample.pred_instances[name], other.pred_instances[name]
            torch.testing.assert_close(*values, atol=1e-5, rtol=1e-4)


def random_clips(number, size=SHAPE[1:]):
    generator = torch.Generator().manual_seed(number)
    shape = number, 3, 2, *size
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize('name', FORMATS)
def test_a_file_gives_the_outputs_of_its_model(name, exported, detector):
    """For any number of clips, from several threads too."""
    run, metadata = load(exported(name))
    assert metadata == about()
    assert metadata.outputs == [*Outputs._fields]
    for number in 1, 5:
        parity = compare(detector, run, random_clips(number), batch=metadata.batch)
        assert parity.scores < 1e-5 and parity.pixels < 1e-2
    clips = [clip.numpy() for clip in random_clips(5).split(1)]
    expected = [run(clip) for clip in clips]
    with ThreadPoolExecutor(4) as threads:
        outputs = threads.map(run, clips * 4)
        for output, other in zip(outputs, expected * 4, strict=True):
            for values, same in zip(output, other, strict=True):
                np.testing.assert_allclose(values, same, atol=1e-5)


@pytest.mark.parametrize('name', FORMATS)
def test_a_file_runs_in_the_place_of_a_checkpoint(name, exported, project, detector):
    model = init_detector(project[0], exported(name), cfg_options=OPTIONS)
    model.metadata = replace(model.metadata, batch=2)  # clips at once, at most
    assert [*model.parameters()]  # otherwise DistributedDataParallel refuses it
    assert [*model.classes] == [*ACTIONS]
    video = write_video(project[0].parent / 'new.mp4', size=(64, 48))
    keyframes, expected = (
        [*detect_video(candidate, video, interval_s=0.5, batch_size=3)]
        for candidate in (model, detector.model)
    )
    assert len(keyframes) > 2
    assert_same_keyframes(keyframes, expected)
    for is_asked in True, False:
        model.with_query_vectors = is_asked
        (sample,) = predict(model, random_clips(1))
        assert ('query_vectors' in sample.pred_instances) == is_asked


# Loads files and drops them, the first one first; then a user presses Ctrl-C.
INTERRUPTED = """
import signal
import sys
from pathlib import Path
from stmixer_mm.projects.export.formats import load

loaded = [load(Path(file)) for file in 2 * sys.argv[1:]]
while loaded:
    del loaded[0]
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print('interrupted')
"""


def test_signals_arrive_after_a_file_was_dropped(exported):
    files = map(str, map(exported, ('onnx', 'openvino')))
    program = subprocess.run(
        [sys.executable, '-c', INTERRUPTED, *files], capture_output=True, text=True
    )
    assert (program.returncode, program.stdout) == (0, 'interrupted\n'), program.stderr


LOWER = [(to, low) for to in FORMATS for low in FORMATS[to].precisions if low != 'fp32']


@pytest.mark.parametrize(('name', 'precision'), LOWER)
def test_lower_precision_differs_a_little(name, precision, detector, traced, tmp_path):
    file = tmp_path / f'low{FORMATS[name].suffix}'
    metadata = about(precision=precision)
    write(traced, metadata, file, FORMATS[name])
    run, stored = load(file)
    assert stored == metadata
    parity = compare(detector, run, random_clips(4))
    assert parity.scores > 1e-7 or precision == 'bf16'  # which some processors lack
    assert is_within(parity, LIMITS[precision])


def test_tensorrt_has_all_operators(exported):
    import onnx

    graph = onnx.load(exported('onnx')).graph
    refused = {*read_table('refused_by_tensorrt.txt')}
    assert not {node.op_type for node in graph.node} & refused
    assert not any(node.domain for node in graph.node)
    shapes = {value.name: value.type.tensor_type.shape for value in graph.value_info}
    ranks = {name: len(shape.dim) for name, shape in shapes.items()}
    sampled = {node.input[0] for node in graph.node if node.op_type == 'GridSample'}
    assert sampled and all(ranks.get(name, 4) == 4 for name in sampled)


def test_a_file_does_not_name_paths_of_the_machine_that_wrote_it(exported):
    weights = exported('openvino').with_suffix('.bin')
    for file in exported('onnx'), exported('openvino'), weights:
        assert str(ROOT).encode() not in file.read_bytes()


def test_tubelets_are_exported(project, tmp_path):
    base, config = (project[0].with_name(f'{name}.py') for name in ('base', 'tubelets'))
    text = config.with_name('tiny.py').read_text()
    base.write_text(text.replace('stmixer_tiny.py', 'stmixer-t_tiny.py'))
    config.write_text(SMALL.replace('tiny.py', 'base.py'))
    options = {'model.head.score_thr': 0.0}
    model = init_detector(config, None, cfg_options=options)
    file = tmp_path / 'tubelets.onnx'
    program = Traced(TensorDetector(model).eval(), SHAPE, None)
    write(program, replace(about(), tubelets=True), file, FORMATS['onnx'])
    exported = init_detector(config, file, cfg_options=options)
    clips = random_clips(3)
    predictions, expected = predict(exported, clips), predict(model, clips)
    assert predictions[0].pred_instances.bboxes.ndim == 3
    names = 'bboxes', 'person_scores', 'scores', 'tubelet_scores'
    assert_same(predictions, expected, *names)


def test_a_file_for_any_height_and_width(detector, project, tmp_path):
    file, traced = tmp_path / 'any.xml', Traced(detector, (2, 40, 53), 1, any_size=True)
    assert traced.shape == [2, None, None]
    write(traced, about(1, shape=traced.shape), file, FORMATS['openvino'])
    model = init_detector(project[0], file)
    sizes = (33, 90), (64, 64), (101, 40)
    clips = [random_clips(number, size) for number, size in enumerate(sizes, start=1)]
    for same_size in clips:
        parity = compare(detector, model.run, same_size, batch=1)
        assert parity.scores < 1e-5 and parity.pixels < 1e-2
    mixed = [clip for same_size in clips for clip in same_size]
    alone = [predict(model, clip[None])[0] for clip in mixed]
    assert_same(predict(model, mixed), alone, 'bboxes')
    with pytest.raises(UserError, match='2x32x50'):
        predict(model, random_clips(1, (32, 50)))


def test_a_model_that_cannot_be_traced_leaves_no_file(detector, tmp_path):
    def branch(module, args, output):
        return output if output.sum() > 0 else -output

    hook = detector.model.neck.projections[0].register_forward_hook(branch)
    with pytest.raises(UserError, match='cannot be exported to'):
        write(
            Traced(detector, SHAPE, 1), about(1), tmp_path / 'a.onnx', FORMATS['onnx']
        )
    hook.remove()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('name', FORMATS)
def test_damaged_files_are_refused(name, exported, project, tmp_path, caplog):
    data, suffix = exported(name).read_bytes(), FORMATS[name].suffix
    contents = b'', b'text', data[: len(data) // 2], project[1].read_bytes()
    for index, content in enumerate(contents):
        file = tmp_path / f'damaged{index}{suffix}'
        file.write_bytes(content)
        with pytest.raises(UserError, match=f'{file.name} cannot be loaded'):
            init_detector(project[0], file)
    with pytest.raises(UserError, match=f'gone{suffix} does not exist'):
        init_detector(project[0], tmp_path / f'gone{suffix}')
    assert not caplog.records


def test_other_configs_are_refused(exported, project):
    file = exported('onnx')
    for name in 'stmixer/stmixer-t_tiny_1xb8-4x3x1_toy', 'roi/roi_tiny_1xb8-4x3x1_toy':
        with pytest.raises(UserError, match='give the config that it was exported'):
            init_detector(ROOT / 'configs' / f'{name}.py', file)
    with pytest.raises(UserError, match='give the config that it was exported'):
        init_detector(project[0], file, cfg_options={'model.head.num_classes': 5})


def test_a_missing_package_is_named(exported, project, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match=r"onnxruntime .*pip install '.*\[export\]'"):
        init_detector(project[0], exported('onnx'))


def test_limits_of_parity():
    limits = LIMITS['fp32']
    assert is_within(Parity(0.0, 0.0), limits)
    for worse in (2e-3, 0.0), (nan, 0.0), (0.0, 0.6), (0.0, nan):
        assert not is_within(Parity(*worse), limits)
