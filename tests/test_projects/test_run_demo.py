"""``make demo`` at a small size and in one process."""

import json
from pathlib import Path

import cv2
import pytest
from run_tool import load_tool, run_tool

OPTIONS = dict(
    toy_options=('--train-videos', '4', '--val-videos', '2', '--workers', '0'),
    cfg_options=('train_cfg.max_epochs=2', 'train_cfg.val_interval=2'),
)


def test_an_interrupted_demo_continues_and_a_finished_one_starts_anew(
    tmp_path, monkeypatch
):
    demo = load_tool('tools/run_demo.py')
    calls, interrupted = [], ['test']

    def run(title, tool, *options):
        name = Path(tool).stem
        calls.append(name)
        if name in interrupted:
            raise KeyboardInterrupt
        run_tool(name, *options)

    monkeypatch.setattr(demo, 'run', run)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        demo.main(**OPTIONS)
    checkpoints = {file.stat().st_mtime_ns for file in tmp_path.rglob('epoch_*.pth')}
    interrupted.clear()
    demo.main(**OPTIONS)
    assert calls == ['make_toy_dataset', 'train', 'test', 'train', 'test', 'demo']
    resumed = {file.stat().st_mtime_ns for file in tmp_path.rglob('epoch_*.pth')}
    assert resumed == checkpoints

    summary = json.loads(Path('work_dirs/demo/summary.json').read_text())
    assert summary['metric'] == 'mAP/overall'
    assert 0 <= summary['score'] <= 1
    video = cv2.VideoCapture(summary['video'])
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 90
    assert Path(summary['video']).with_suffix('.json').is_file()

    interrupted.append('test')
    with pytest.raises(KeyboardInterrupt):
        demo.main(**OPTIONS)
    anew = {file.stat().st_mtime_ns for file in tmp_path.rglob('epoch_*.pth')}
    assert not anew & checkpoints
