import os

import numpy as np
import pytest
import torch
from run_tool import run_and_fail, run_tool
from tiny import MASK_HEAD
from tiny_stmixer import write_project, write_video

from stmixer_mm.apis import init_detector
from stmixer_mm.projects.export import parity
from stmixer_mm.projects.export.formats import load
from stmixer_mm.projects.export.parity import move

for package in 'onnx', 'onnxscript', 'onnxruntime':
    pytest.importorskip(package)

CONFIG = f"""
_base_ = 'tiny.py'
model = dict(
    backbone=dict(
        num_stages=1, stage_blocks=(1,), out_indices=(0,), spatial_strides=(1,),
        temporal_strides=(1,), dilations=(1,), inflate=(0,),
    ),
    neck=dict(in_channels=[4]),
    decoder=dict(num_stages=1),
    mask_head={MASK_HEAD | dict(num_levels=1)},
)
custom_imports = dict(imports=['stmixer_mm.projects.masks'])
"""


@pytest.fixture(scope='module')
def arguments(tmp_path_factory):
    config = write_project(tmp_path_factory.mktemp('project')).with_name('small.py')
    config.write_text(CONFIG)
    checkpoint = config.with_suffix('.pth')
    torch.save(init_detector(config, None).state_dict(), checkpoint)
    video = write_video(config.parent / 'new.mp4', size=(96, 48))
    return config, checkpoint, '--to', 'onnx', '--video', video


def test_a_file_and_its_description(arguments, tmp_path, capsys):
    file = tmp_path / 'tiny.onnx'
    shape = '--shape', 2, 32, 64  # of the video's clips
    run_tool('export', *arguments, '--out', file, '--dynamic', 'batch', *shape)
    assert 'mask_head is left out' in capsys.readouterr().out
    assert {*tmp_path.iterdir()} == {file, tmp_path / 'tiny.onnx.json'}
    run, about = load(file)
    assert file.with_name('tiny.onnx.json').read_text() == f'{about.to_text()}\n'
    assert about.classes == ['stand', 'walk']
    assert (about.frame_interval, about.batch) == (2, None)
    assert about.shape == [2, 32, 64]
    clips = np.zeros((3, 3, 2, 32, 64), np.uint8)
    assert {len(output) for output in run(clips)} == {3}


def test_what_differs_is_not_written(arguments, tmp_path, capsys, monkeypatch):
    limits = dict(fp32=parity.Parity(-1.0, -1.0))
    monkeypatch.setattr(parity, 'LIMITS', limits)
    error = run_and_fail(capsys, 'export', *arguments, '--out', tmp_path / 'tiny.ONNX')
    assert 'Nothing is written' in error
    assert not [*tmp_path.iterdir()]


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
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'replace', killed)
        move(tmp_path / 'new' / 'model.xml', tmp_path / 'tiny.xml')
    assert not (tmp_path / 'tiny.xml').exists()
    assert (tmp_path / 'tiny.bin').read_text() == 'new'
