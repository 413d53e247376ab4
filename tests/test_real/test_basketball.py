"""The main job on real input: train on a real clip, and remember it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'basketball' / 'stmixer_tiny_1xb4-4x8x1_basketball.py'
REAL_DATA = os.environ.get('STMIXER_REAL_DATA')


@pytest.mark.skipif(not REAL_DATA, reason='STMIXER_REAL_DATA is not set')
def test_a_small_model_remembers_nine_keyframes(tmp_path):
    (tmp_path / 'data').mkdir()
    clip = Path(REAL_DATA, 'basketball').resolve()
    (tmp_path / 'data' / 'basketball').symlink_to(clip)
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    subprocess.run(
        [sys.executable, ROOT / 'tools' / 'train.py', CONFIG, '--seed', '0'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        check=True,
    )
    (scalars,) = tmp_path.glob('work_dirs/*/*/vis_data/scalars.json')
    last = json.loads(scalars.read_text().splitlines()[-1])
    assert last['mAP/overall'] >= 0.99
