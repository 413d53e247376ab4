"""The table of ``tools/print_model.py``."""

import pytest
from run_tool import run_tool
from tiny_stmixer import ROOT, write_project


def table(capsys, config, *options):
    """Words of the rows by their first one; rows without one continue a part."""
    capsys.readouterr()
    run_tool('print_model', config, *options)
    lines = capsys.readouterr().out.splitlines()[3:]
    return {line.split()[0]: line.split()[1:] for line in lines if line[0] != ' '}


def test_shapes_of_a_tiny_model(tmp_path, capsys):
    rows = table(capsys, write_project(tmp_path))
    # 32x40 pixels of frames of 4:5, padded to multiples of 32.
    padded = ['ClipDataPreprocessor', '3x2x32x40', '3x2x32x64', '0.000']
    assert rows['data_preprocessor'] == padded
    assert rows['backbone'] == ['ResNet3dSlowOnly', '3x2x32x64', '4x2x8x16', '0.018']
    assert rows['neck'] == ['ChannelProjection3D', '4x2x8x16', '16x2x8x16', '0.000']
    assert rows['decoder'][:4] == ['STMixerDecoder', 'strides', '4,', '8']
    numbers = [float(row[-1]) for row in rows.values()]
    assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=2e-3)


def test_a_clip_of_another_shape_and_necks_in_a_row(write_text, capsys):
    slowonly = next((ROOT / 'configs' / 'stmixer').glob('*slowonly*.py'))
    path = write_text(
        'two_necks.py',
        f'_base_ = {str(slowonly)!r}',
        "first = dict(type='ChannelProjection3D', in_channels=[256, 512, 1024, 2048])",
        'first.update(out_channels=64)',
        "second = dict(type='BiFPN3D', in_channels=[64] * 4, out_channels=256)",
        'model = dict(neck=[first, second])',
    )
    rows = table(capsys, path, '--shape', 4, 128, 100)
    assert rows['data_preprocessor'][1:3] == ['3x4x128x100', '3x4x128x128']
    assert rows['neck[1]'][:3] == ['BiFPN3D', '64x4x32x32', '256x4x32x32']
