"""``tools/export.py``, in the format that needs no further package."""

import json
import os

import pytest
import torch
from mmaction.structures import ActionDataSample
from run_tool import run_and_fail, run_tool
from tiny_stmixer import ROOT, write_model, write_video

from stmixer_mm.apis import init_detector
from stmixer_mm.export import parity
from stmixer_mm.export.formats import FORMATS, load
from stmixer_mm.profiling import meter


@pytest.fixture(scope='module')
def arguments(tmp_path_factory):
    config, checkpoint = write_model(tmp_path_factory.mktemp('project'))
    video = write_video(config.parent / 'new.mp4', size=(96, 48))
    return config, checkpoint, '--to', 'torch', '--video', video


def test_a_program_that_needs_nothing_of_this_package(arguments, tmp_path, capsys):
    file = tmp_path / 'tiny.pt2'
    larger = 'test_dataloader.dataset.pipeline.3.scale=(-1,40)'
    anything = '--dynamic', 'batch', 'size', '--cfg-options', larger
    run_tool('export', *arguments, '--out', file, *anything)
    *_, random, real, other_size, written = capsys.readouterr().out.splitlines()
    assert random.split()[:4] == ['torch', 'fp32,', 'random', '2']
    assert real.split()[:4] == ['torch', 'fp32,', 'real', '4']
    assert other_size.split()[2:6] == ['random,', 'other', 'size', '2']
    assert written.endswith('clips [2, any, any]')

    extra = {'stmixer_mm.json': ''}
    program = torch.export.load(file, extra_files=extra)
    about = json.loads(extra['stmixer_mm.json'])
    assert about['classes'] == ['stand', 'walk']
    assert (about['frame_interval'], about['batch']) == (2, None)
    assert about['shape'] == [2, None, None]
    clips = torch.zeros(3, 3, 2, 40, 99, dtype=torch.uint8)
    outputs = dict(zip(about['outputs'], program.module()(clips), strict=True))
    assert {name: [*each.shape] for name, each in outputs.items()} == dict(
        person_scores=[3, 4],
        action_scores=[3, 4, 2],
        bboxes=[3, 4, 4],
        query_vectors=[3, 4, 16],
    )


def test_what_differs_is_not_written(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(parity.LIMITS, 'fp32', parity.Limits(-1.0, -1.0))
    error = run_and_fail(capsys, 'export', *arguments, '--out', tmp_path / 'tiny.pt2')
    assert 'tiny.pt2 is not written: scores differ by more than -1' in error
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('fastest', ['onnx int8', 'the checkpoint with --fast'])
def test_what_is_fastest_here_is_kept(
    fastest, arguments, tmp_path, capsys, monkeypatch
):
    pytest.importorskip('onnxruntime')
    for name in 'openvino', 'inductor':  # which take longer to write
        monkeypatch.setattr(FORMATS[name], 'fast', ())
    monkeypatch.setattr(
        meter,
        'take_turns',
        lambda runs, **_: {name: 1.0 + (name != fastest) for name in runs},
    )
    config, checkpoint, _, _, *video = arguments
    auto = '--to', 'auto', '--precision', 'auto'
    run_tool('export', config, checkpoint, *auto, *video, '--out', tmp_path / 'tiny')
    printed = capsys.readouterr().out
    assert f'fastest here: {fastest}' in printed
    assert 'onnx fp32, real' in printed
    if 'int8' not in fastest:
        assert 'nothing is written' in printed
        assert not [*tmp_path.iterdir()]
        return
    assert [path.name for path in tmp_path.iterdir()] == ['tiny.onnx']
    _, metadata = load(tmp_path / 'tiny.onnx')
    assert metadata.precision == 'int8'


def test_ranges_of_int8_come_from_the_training_set_or_a_video(
    arguments, tmp_path, capsys
):
    config, checkpoint, *_ = arguments
    error = run_and_fail(
        *(capsys, 'export', config, checkpoint, '--to', 'onnx', '--precision', 'int8'),
        *('--shape', '2', '16', '16', '--out', tmp_path / 'tiny.onnx'),
    )
    assert 'give another --video' in error
    cases = '--precision', 'auto', '--shape', '2', '16', '16'
    file = tmp_path / 'tiny.onnx'
    run_tool('export', config, checkpoint, '--to', 'onnx', *cases, '--out', file)
    assert 'int8 is left out: int8 learns ranges' in capsys.readouterr().out
    low = '--precision', 'int8'
    run_tool('export', config, checkpoint, '--to', 'onnx', *low, '--out', file)
    _, metadata = load(file)
    assert metadata.precision == 'int8' and metadata.shape[0] == 2


def test_names_are_kept(arguments, tmp_path, capsys, monkeypatch):
    """Upper case, and points in the names of --to auto."""
    other = tmp_path / 'tiny.pt2'
    other.write_text('another')
    run_tool('export', *arguments, '--out', tmp_path / 'tiny.PT2')
    assert other.read_text() == 'another'
    assert load(tmp_path / 'tiny.PT2')[1].batch == 1

    pytest.importorskip('onnxruntime')
    for name in 'openvino', 'inductor':
        monkeypatch.setattr(FORMATS[name], 'fast', ())
    monkeypatch.setattr(
        meter,
        'take_turns',
        lambda runs, **_: {name: 1.0 + ('onnx' not in name) for name in runs},
    )
    config, checkpoint, *_ = arguments
    for name, written in ('model-v0.1', 'model-v0.1.onnx'), ('b.xml', 'b.onnx'):
        auto = '--to', 'auto', '--precision', 'fp32', '--out', tmp_path / name
        run_tool('export', config, checkpoint, *auto)
        assert (tmp_path / written).is_file()
    (tmp_path / 'c.onnx').mkdir()
    auto = '--to', 'auto', '--out', tmp_path / 'c'
    error = run_and_fail(capsys, 'export', config, checkpoint, *auto)
    assert 'c.onnx is a folder' in error
    assert len([*tmp_path.iterdir()]) == 5


def test_a_pair_of_files_is_of_one_model(arguments, tmp_path, monkeypatch):
    pytest.importorskip('openvino')
    config, checkpoint, *_ = arguments
    pair = '--to', 'openvino', '--out', tmp_path / 'tiny.xml'
    run_tool('export', config, checkpoint, *pair)
    assert {path.name for path in tmp_path.iterdir()} == {'tiny.xml', 'tiny.bin'}
    replace = os.replace

    def killed(source, target):
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', killed)
    with pytest.raises(SystemExit):
        run_tool('export', config, checkpoint, *pair)
    assert {path.name for path in tmp_path.iterdir()} == {'tiny.bin'}


@pytest.mark.parametrize('part', ['query_interaction', 'mask_head'])
def test_parts_that_depend_on_who_is_found_are_left_out(part, tmp_path, capsys):
    name = dict(query_interaction='track-queries', mask_head='masks')[part]
    config = ROOT / 'configs' / 'experiments' / f'stmixer_tiny-{name}_toy.py'
    model = init_detector(config, None)
    model.classes = None
    checkpoint, file = tmp_path / 'tiny.pth', tmp_path / 'tiny.pt2'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    size = '--to', 'torch', '--shape', '4', '64', '64'
    run_tool('export', config, checkpoint, *size, '--out', file)
    assert f'{part} is left out' in capsys.readouterr().out
    clips = torch.randint(0, 256, (1, 3, 4, 64, 64), dtype=torch.uint8)
    found, expected = (
        one.test_step(dict(inputs=[*clips], data_samples=[ActionDataSample()]))[0]
        for one in (init_detector(config, file), model.eval())
    )
    torch.testing.assert_close(
        found.pred_instances.bboxes,
        expected.pred_instances.bboxes,
        atol=1e-5,
        rtol=1e-4,
    )
