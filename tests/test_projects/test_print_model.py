"""The table of ``tools/print_model.py``."""

import pytest
from run_tool import run_tool
from tiny_stmixer import write_project


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
    # A clip of another shape, and necks in a row.
    (tmp_path / 'two_necks.py').write_text(
        "_base_ = 'tiny.py'\n"
        "first = dict(type='ChannelProjection3D', in_channels=[4, 16], out_channels=8)\n"
        "second = dict(type='ChannelProjection3D', in_channels=[8, 8], out_channels=16)\n"
        'model = dict(neck=[first, second])'
    )
    rows = table(capsys, tmp_path / 'two_necks.py', '--shape', 2, 128, 100)
    assert rows['data_preprocessor'][1:3] == ['3x2x128x100', '3x2x128x128']
    assert rows['neck[1]'][:3] == ['ChannelProjection3D', '8x2x32x32', '16x2x32x32']
