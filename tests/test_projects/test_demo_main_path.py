"""What `make demo` does, at a small size and in one process."""

import json
from pathlib import Path

import cv2
from run_tool import load_tool, run_tool


def test_toy_videos_to_annotated_video(tmp_path, monkeypatch):
    demo = load_tool('tools/run_demo.py')
    monkeypatch.setattr(
        demo, 'run', lambda title, tool, *options: run_tool(Path(tool).stem, *options)
    )
    monkeypatch.chdir(tmp_path)
    demo.main(
        [
            '--toy-options=--train-videos 4 --val-videos 2 --workers 0',
            '--cfg-options=train_cfg.max_epochs=2 train_cfg.val_interval=2',
        ]
    )
    summary = json.loads(Path('work_dirs/demo/summary.json').read_text())
    assert summary['metric'] == 'mAP/overall'
    assert 0 <= summary['score'] <= 1
    video = cv2.VideoCapture(summary['video'])
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 90
    assert Path(summary['video']).with_suffix('.json').is_file()
