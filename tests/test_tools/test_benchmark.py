import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmark.py'


@pytest.mark.parametrize('mode', ['forward', 'train'])
def test_a_row_per_back_end(mode, tmp_path, monkeypatch):
    out = tmp_path / 'rows.json'
    options = ['--mode', mode, '--queries', '3', '--size', '64x64', '--turns', '1']
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *options, '--json', str(out)])
    runpy.run_path(str(TOOL), run_name='__main__')
    rows = json.loads(out.read_text())
    assert [row['backend'] for row in rows] == ['grid_sample', 'embedding_bag', 'mmcv']
    assert rows[0]['ratio'] == 1
    assert all(row['mode'] == mode and row['seconds'] > 0 for row in rows)
