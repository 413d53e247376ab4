"""``tools/export.py``, mostly in the format that needs no further package."""

import json
import os
import time

import pytest
import torch
from run_tool import load_tool, run_and_fail, run_tool
from tiny_stmixer import write_project, write_video

from stmixer_mm.apis import init_detector
from stmixer_mm.projects.export import candidates
from stmixer_mm.projects.export.candidates import Candidate, keep
from stmixer_mm.projects.export.formats import FORMATS, load
from stmixer_mm.projects.profiling import meter

CONFIG = """
_base_ = 'tiny.py'
losses = dict(
    loss_mask=dict(type='mmdet.FocalLoss', use_sigmoid=True),
    loss_dice=dict(type='mmdet.DiceLoss'),
)
model = dict(
    backbone=dict(
        num_stages=1, stage_blocks=(1,), out_indices=(0,), spatial_strides=(1,),
        temporal_strides=(1,), dilations=(1,), inflate=(0,),
    ),
    neck=dict(in_channels=[4]),
    decoder=dict(num_stages=1),
    query_interaction=dict(type='QueryInteraction'),
    mask_head=dict(type='QueryMaskHead', num_levels=1, **losses),
)
custom_imports = dict(
    imports=['stmixer_mm.projects.masks', 'stmixer_mm.projects.track_queries']
)
"""


@pytest.fixture(scope='module')
def arguments(tmp_path_factory):
    config = write_project(tmp_path_factory.mktemp('project')).with_name('small.py')
    config.write_text(CONFIG)
    checkpoint = config.with_suffix('.pth')
    torch.save(init_detector(config, None).state_dict(), checkpoint)
    video = write_video(config.parent / 'new.mp4', size=(96, 48))
    return config, checkpoint, '--to', 'torch', '--video', video


def test_a_program_that_needs_nothing_of_this_package(arguments, tmp_path, capsys):
    file = tmp_path / 'tiny.pt2'
    run_tool('export', *arguments, '--out', file, '--dynamic', 'batch')
    printed = capsys.readouterr().out
    for part in 'query_interaction', 'mask_head':  # depend on the persons found
        assert f'{part} is left out' in printed

    extra = {'stmixer_mm.json': ''}
    program = torch.export.load(file, extra_files=extra)
    about = json.loads(extra['stmixer_mm.json'])
    assert about['classes'] == ['stand', 'walk']
    assert (about['frame_interval'], about['batch']) == (2, None)
    assert about['shape'] == [2, 32, 64]
    clips = torch.randint(0, 256, (3, 3, 2, 32, 64), dtype=torch.uint8)
    outputs = dict(zip(about['outputs'], program.module()(clips), strict=True))
    assert {name: [*each.shape] for name, each in outputs.items()} == dict(
        person_scores=[3, 4],
        action_scores=[3, 4, 2],
        bboxes=[3, 4, 4],
        query_vectors=[3, 4, 16],
    )


def test_what_differs_is_not_written(arguments, tmp_path, capsys, monkeypatch):
    limits = dict(fp32=candidates.Parity(-1.0, -1.0))
    monkeypatch.setattr(candidates, 'LIMITS', limits)
    error = run_and_fail(capsys, 'export', *arguments, '--out', tmp_path / 'tiny.PT2')
    assert 'Nothing is written' in error
    assert not [*tmp_path.iterdir()]


def test_the_fastest_is_kept(arguments, tmp_path, capsys, monkeypatch):
    pytest.importorskip('onnxruntime')

    def int8_is_faster(runs, **_):
        return {name: 1.0 + ('int8' not in name) for name in runs}

    monkeypatch.setattr(meter, 'take_turns', int8_is_faster)
    for name in 'openvino', 'inductor':  # which take longer to write
        monkeypatch.setitem(FORMATS, name, FORMATS[name]._replace(is_fast=False))
    auto = '--to', 'auto', '--precision', 'auto', '--video', arguments[-1]
    run_tool('export', *arguments[:2], *auto, '--out', tmp_path / 'tiny')
    assert 'fastest here: onnx int8' in capsys.readouterr().out
    file, beside = tmp_path / 'tiny.onnx', tmp_path / 'tiny.onnx.json'
    assert {*tmp_path.iterdir()} == {file, beside}
    about = load(file)[1]
    assert about.precision == 'int8' and beside.read_text() == f'{about.to_text()}\n'


def test_the_checkpoint_may_be_the_fastest():
    clip = torch.zeros(1)
    find_fastest = load_tool('tools/export.py').find_fastest
    slow = Candidate('slow', None, lambda clip: time.sleep(0.01), None, True)
    assert find_fastest([slow], {'the checkpoint': lambda clip: clip}, clip) is None
    rivals = {'the checkpoint': lambda clip: time.sleep(0.02)}
    assert find_fastest([slow], rivals, clip) is slow


def test_a_pair_of_files_is_of_one_model(tmp_path, monkeypatch):
    """Even if the tool is killed between the two."""
    replace = os.replace

    def killed(source, target):
        replace(source, target)
        raise KeyboardInterrupt

    (tmp_path / 'new').mkdir()
    for suffix in '.xml', '.bin':
        (tmp_path / f'tiny{suffix}').write_text('of the model before')
        (tmp_path / 'new' / f'model{suffix}').write_text('new')
    new = Candidate('new', tmp_path / 'new' / 'model.xml', None, None, True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'replace', killed)
        keep(new, tmp_path / 'tiny.xml')
    assert not (tmp_path / 'tiny.xml').exists()
    assert (tmp_path / 'tiny.bin').read_text() == 'new'
