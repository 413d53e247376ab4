"""The main job on real input: train on a real clip, and remember it."""

import json
import os
from pathlib import Path

import pytest
from run_tool import ROOT, run_tool

CONFIG = ROOT / 'configs' / 'basketball' / 'stmixer_tiny_1xb4-4x8x1_basketball.py'
REAL_DATA = os.environ.get('STMIXER_REAL_DATA')


@pytest.mark.skipif(not REAL_DATA, reason='STMIXER_REAL_DATA is not set')
def test_a_small_model_remembers_nine_keyframes(tmp_path, monkeypatch):
    (tmp_path / 'data').mkdir()
    clip = Path(REAL_DATA, 'basketball').resolve()
    (tmp_path / 'data' / 'basketball').symlink_to(clip)
    monkeypatch.chdir(tmp_path)
    run_tool('train', CONFIG, '--seed', 0)
    (scalars,) = tmp_path.glob('work_dirs/*/*/vis_data/scalars.json')
    last = json.loads(scalars.read_text().splitlines()[-1])
    assert last['mAP/overall'] >= 0.99
