"""``tools/export.py``."""

import os

import pytest
import torch
from run_tool import run_and_fail, run_tool
from tiny_stmixer import write_project, write_video

from stmixer_mm.apis import init_detector
from stmixer_mm.projects.export import parity
from stmixer_mm.projects.export.formats import load
from stmixer_mm.projects.export.parity import move

for package in 'onnx', 'onnxscript', 'onnxruntime':
    pytest.importorskip(package)

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
    mask_head=dict(type='QueryMaskHead', num_levels=1, **losses),
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
    printed = capsys.readouterr().out
    assert 'mask_head is left out' in printed  # it depends on the persons found
    assert 's a clip, the model' in printed
    assert {*tmp_path.iterdir()} == {file, tmp_path / 'tiny.onnx.json'}
    run, about = load(file)
    assert file.with_name('tiny.onnx.json').read_text() == f'{about.to_text()}\n'
    assert about.classes == ['stand', 'walk']
    assert (about.frame_interval, about.batch) == (2, None)
    assert about.shape == [2, 32, 64]
    clips = torch.randint(0, 256, (3, 3, 2, 32, 64), dtype=torch.uint8)
    outputs = dict(zip(about.outputs, run(clips.numpy()), strict=True))
    assert {name: [*values.shape] for name, values in outputs.items()} == dict(
        person_scores=[3, 4],
        action_scores=[3, 4, 2],
        bboxes=[3, 4, 4],
        query_vectors=[3, 4, 16],
    )


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
