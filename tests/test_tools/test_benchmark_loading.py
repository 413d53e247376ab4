import json
import os
import sys

import pytest
from run_tool import load_tool
from tiny_stmixer import ROOT

PATH = ROOT / 'tools' / 'analysis' / 'benchmark_loading.py'
TOOL = load_tool(PATH)


@pytest.mark.skipif(
    not os.path.exists('/proc/self/smaps_rollup'), reason='memory is read from /proc'
)
def test_all_parts_read_what_they_are_given(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'rows.json'
    args = ['--keyframes', '300', '--excluded', '20', '--tube-share', '0.01']
    monkeypatch.setattr(sys, 'argv', [str(PATH), *args, '--json', str(out)])
    monkeypatch.setitem(sys.modules, TOOL.__name__, TOOL)
    TOOL.main()
    rows = {row['part']: row for row in json.loads(out.read_text())}
    assert tuple(rows) == TOOL.PARTS
    ours, host = rows['KeyframeDataset'], rows['AVADataset']
    assert ours['samples'] == host['samples'] == 280
    # 45 tubes in 32 videos: 13 of them have two, in the same frames.
    assert rows['TubeDataset']['samples'] == 32 * TOOL.TUBE_LENGTH
    assert all(row['seconds'] > 0 for row in rows.values())
    printed = capsys.readouterr().out
    assert all(part in printed for part in TOOL.PARTS)
