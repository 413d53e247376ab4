"""``make demo`` at a small size and in one process."""

import json
from pathlib import Path

import cv2
import pytest
from run_tool import load_tool, run_tool

OPTIONS = dict(
    toy_options=('--train-videos', '2', '--val-videos', '1', '--workers', '0'),
    cfg_options=(
        'train_cfg.max_epochs=1',
        *(f'{split}_dataloader.num_workers=0' for split in ('train', 'test')),
        *(
            f'{split}_dataloader.persistent_workers=False'
            for split in ('train', 'test')
        ),
    ),
)


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The tool, interrupted at ``ends_at``; a finished training is not resumed."""
    demo = load_tool('tools/run_demo.py')
    demo.calls, demo.ends_at = [], None

    def run(title, tool, *options):
        demo.calls.append(Path(tool).stem)
        if tool == demo.ends_at:
            raise KeyboardInterrupt
        if not (tool == 'train.py' and checkpoints()):
            run_tool(Path(tool).stem, *options)

    monkeypatch.setattr(demo, 'run', run)
    monkeypatch.chdir(tmp_path)
    return demo


def interrupt(demo, tool):
    """Run the demo up to a tool; the times of its checkpoints."""
    demo.ends_at = tool
    with pytest.raises(KeyboardInterrupt):
        demo.main(**OPTIONS)
    demo.ends_at = None
    return checkpoints()


def checkpoints():
    return {file.stat().st_mtime_ns for file in Path().rglob('epoch_*.pth')}


def test_an_interrupted_demo_continues_and_a_finished_one_starts_anew(demo):
    before = interrupt(demo, 'test.py')
    demo.main(**OPTIONS)
    assert demo.calls == ['make_toy_dataset', 'train', 'test', 'train', 'test', 'demo']
    assert checkpoints() == before != set()
    summary = json.loads(Path('work_dirs/demo/summary.json').read_text())
    assert summary['metric'] == 'mAP/overall'
    assert 0 <= summary['score'] <= 1
    assert cv2.VideoCapture(summary['video']).get(cv2.CAP_PROP_FRAME_COUNT) == 90
    assert interrupt(demo, 'train.py') == set()
