"""What `make demo` does, at a small size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).parents[2]


def test_toy_videos_to_annotated_video(tmp_path):
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    subprocess.run(
        [
            sys.executable,
            ROOT / 'tools' / 'run_demo.py',
            '--toy-options=--train-videos 4 --val-videos 2',
            '--cfg-options=train_cfg.max_epochs=1 train_cfg.val_interval=1',
        ],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        check=True,
    )
    summary = json.loads((tmp_path / 'work_dirs/demo/summary.json').read_text())
    assert summary['metric'] == 'mAP/overall'
    assert 0 <= summary['score'] <= 1
    video = cv2.VideoCapture(summary['video'])
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 90
    assert Path(summary['video']).with_suffix('.json').is_file()
