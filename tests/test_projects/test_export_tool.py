"""``tools/export.py``, in the format that needs no further package."""

import json
import os
from pathlib import Path

import pytest
import torch
from mmaction.structures import ActionDataSample
from run_tool import load_tool, run_and_fail, run_tool
from tiny_stmixer import write_model, write_video

from stmixer_mm.apis import init_detector
from stmixer_mm.errors import UserError
from stmixer_mm.projects.export import formats, parity
from stmixer_mm.projects.export.formats import FORMATS, load
from stmixer_mm.projects.profiling import meter

TOOL = load_tool('tools/export.py')


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


def test_an_upper_case_name_is_kept(arguments, tmp_path):
    other, file = tmp_path / 'tiny.pt2', tmp_path / 'tiny.PT2'
    other.write_text('another')
    run_tool('export', *arguments, '--out', file)
    assert other.read_text() == 'another'
    assert load(file)[1].batch == 1


@pytest.mark.parametrize(
    ('out', 'named'),
    [
        ('model', 'model.onnx'),
        ('model-v0.1', 'model-v0.1.onnx'),
        ('b.ONNX', 'b.ONNX'),
        ('b.xml', 'b.onnx'),
    ],
)
def test_the_suffix_follows_from_the_format(out, named):
    assert TOOL.name_of(Path(out), FORMATS['onnx']) == Path(named)


def test_folders_are_refused_before_the_work(arguments, tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    (tmp_path / 'c.onnx').mkdir()
    config, checkpoint, *_ = arguments
    auto = '--to', 'auto', '--out', tmp_path / 'c'
    assert 'c.onnx is a folder' in run_and_fail(
        capsys, 'export', config, checkpoint, *auto
    )


def test_where_no_format_takes_the_model_it_says_so(arguments, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise UserError('It lacks an operator.')

    monkeypatch.setattr(formats, 'write', refuse)
    config, checkpoint, *_ = arguments
    auto = '--to', 'onnx', '--precision', 'auto', '--out', 'a.onnx'
    said = run_and_fail(capsys, 'export', config, checkpoint, *auto)
    assert 'a.onnx is not written: no format takes this model' in said


def test_what_is_exported_already_is_no_checkpoint(arguments, capsys):
    options = 'x.onnx', '--to', 'torch', '--out', 'a.pt2'
    said = run_and_fail(capsys, 'export', arguments[0], *options)
    assert 'x.onnx is exported already' in said


def test_a_pair_of_files_is_of_one_model(arguments, tmp_path, monkeypatch):
    pytest.importorskip('openvino')
    config, checkpoint, *_ = arguments
    for name in 'tiny.xml', 'tiny.bin':
        (tmp_path / name).write_text('of the model before')
    replace = os.replace

    def killed(source, target):
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', killed)
    pair = '--to', 'openvino', '--out', tmp_path / 'tiny.xml'
    with pytest.raises(SystemExit):
        run_tool('export', config, checkpoint, *pair)
    assert [path.name for path in tmp_path.iterdir()] == ['tiny.bin']


PARTS = """
_base_ = {base!r}
losses = dict(
    loss_mask=dict(type='mmdet.FocalLoss', use_sigmoid=True),
    loss_dice=dict(type='mmdet.DiceLoss'),
)
model = dict(
    query_interaction=dict(type='QueryInteraction'),
    mask_head=dict(type='QueryMaskHead', num_levels=2, **losses),
)
"""


def test_parts_that_depend_on_who_is_found_are_left_out(arguments, tmp_path, capsys):
    config, checkpoint = tmp_path / 'more.py', tmp_path / 'more.pth'
    config.write_text(PARTS.format(base=str(arguments[0])))
    model = init_detector(config, None)
    torch.save(model.state_dict(), checkpoint)
    file, size = tmp_path / 'more.pt2', ('--shape', '2', '32', '40')
    run_tool('export', config, checkpoint, '--to', 'torch', *size, '--out', file)
    printed = capsys.readouterr().out
    for part in 'query_interaction', 'mask_head':
        assert f'{part} is left out' in printed
    clips = torch.randint(0, 256, (1, 3, 2, 32, 40), dtype=torch.uint8)
    found, expected = (
        one.test_step(dict(inputs=[*clips], data_samples=[ActionDataSample()]))[0]
        for one in (init_detector(config, file), model)
    )
    assert 'masks' not in found.pred_instances
    for name in 'bboxes', 'person_scores':
        torch.testing.assert_close(
            found.pred_instances[name],
            expected.pred_instances[name],
            atol=1e-5,
            rtol=1e-4,
        )
