"""The table of ``tools/print_model.py``."""

import runpy
import socket
import sys

import pytest
from tiny_stmixer import ROOT, write_project

TOOL = ROOT / 'tools' / 'print_model.py'
SLOWONLY = next((ROOT / 'configs' / 'stmixer').glob('*slowonly*.py'))


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the tool in this process, without a network; returns its lines."""

    def refuse(*args, **kwargs):
        raise AssertionError('the tool asks the network')

    monkeypatch.setattr(socket, 'create_connection', refuse)
    monkeypatch.setattr(socket.socket, 'connect', refuse)

    def run_tool(config, *args):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), str(config), *map(str, args)])
        capsys.readouterr()
        runpy.run_path(str(TOOL), run_name='__main__')
        return capsys.readouterr().out.splitlines()

    return run_tool


def test_shapes_of_a_tiny_model(run, tmp_path):
    lines = run(write_project(tmp_path))
    # 32x40 pixels of frames of 4:5, padded to multiples of 32.
    cells = [line.split() for line in lines[3:]]
    assert cells == [
        [
            'data_preprocessor',
            'ClipDataPreprocessor',
            '3x2x32x40',
            '3x2x32x64',
            '0.000',
        ],
        ['backbone', 'ResNet3dSlowOnly', '3x2x32x64', '4x2x8x16', '0.018'],
        ['16x2x4x8'],
        ['neck', 'ChannelProjection3D', '4x2x8x16', '16x2x8x16', '0.000'],
        ['16x2x4x8', '16x2x4x8'],
        [
            *('decoder', 'STMixerDecoder', 'strides', '4,', '8'),
            *('2', 'stages', 'of', '4', 'queries', cells[5][-1]),
        ],
        ['initial_boxes', 'WholeFrameBoxes', 'frames', '4', 'boxes', '0.000'],
        [
            *('head', 'STMixerHead', '2', 'stages', 'of', '4', 'queries'),
            *('boxes,', '2', 'actions', '0.000'),
        ],
        ['total', 'STMixer', cells[8][-1]],
    ]
    numbers = [float(row[-1]) for row in cells if row[-1].count('.') == 1]
    assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=2e-3)


def test_a_clip_of_another_shape_and_necks_in_a_row(run, write_text):
    path = write_text(
        'two_necks.py',
        f'_base_ = {str(SLOWONLY)!r}',
        "first = dict(type='ChannelProjection3D', in_channels=[256, 512, 1024, 2048])",
        'first.update(out_channels=64)',
        "second = dict(type='BiFPN3D', in_channels=[64] * 4, out_channels=256)",
        'model = dict(neck=[first, second])',
    )
    lines = run(path, '--shape', 4, 128, 100)
    text = '\n'.join(lines)
    assert '3x4x128x100   ' in text and '3x4x128x128' in text
    assert 'neck[0]' in text and 'neck[1]' in text
    row = next(line for line in lines if line.startswith('neck[1]'))
    assert row.split()[1:4] == ['BiFPN3D', '64x4x32x32', '256x4x32x32']
    assert 'strides 4, 8, 16, 32' in text


def test_parts_that_only_run_for_real(run):
    (path,) = (ROOT / 'configs').glob('experiments/*-framewise-nasfpn_toy.py')
    lines = run(path)
    row = next(line for line in lines if line.startswith('neck'))
    assert row.split()[:4] == ['neck', 'FramewiseNeck', '16x4x24x32', '64x4x24x32']
    assert lines[-1].startswith('total')


def test_what_is_not_known_of_a_host_model(run):
    lines = run(
        'mmaction::detection/slowonly/'
        'slowonly_kinetics400-pretrained-r50_8xb16-4x16x1-20e_ava21-rgb.py',
    )
    backbone = next(line for line in lines if line.startswith('backbone'))
    assert '2048x4x16x20' in backbone
    assert lines[-1] == 'What roi_head makes of this is not known here.'


def test_images(run):
    path = next((ROOT / 'configs' / 'still_images').glob('*tiny*.py'))
    lines = run(path, '--shape', 1, 64, 90)
    assert any('3x64x96' in line for line in lines if line.startswith('backbone'))
    assert not any('?' in line for line in lines)
