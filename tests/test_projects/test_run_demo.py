"""``make demo`` at a small size and in one process; the clip that it looks for."""

import json
from pathlib import Path

import cv2
import pytest
from run_tool import load_tool, run_tool

OPTIONS = dict(
    toy='full',
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
    saved = interrupt(demo, 'test.py')
    demo.main(**OPTIONS)
    assert demo.calls == [
        'make_toy_dataset',
        'train',
        'test',
        'train',
        'test',
        'detect',
    ]
    assert checkpoints() == saved != set()
    summary = json.loads(Path('work_dirs/demo/summary.json').read_text())
    assert summary['metric'] == 'mAP/overall'
    assert 0 <= summary['score'] <= 1
    assert cv2.VideoCapture(summary['video']).get(cv2.CAP_PROP_FRAME_COUNT) == 90
    assert Path(summary['video']).with_suffix('.png').is_file()
    assert interrupt(demo, 'train.py') == set()


def test_without_training_the_model_of_this_package_is_shown(demo, monkeypatch, capsys):
    """On a toy video where there is no clip; the place of the clip is told."""
    monkeypatch.setattr(demo, 'find_clip', lambda clip: None)
    demo.main()
    assert demo.calls == ['make_toy_dataset', 'detect']
    printed = capsys.readouterr().out
    assert 'name it with --clip' in printed and printed.count('next: ') == 3
    (video,) = Path('work_dirs/demo').glob('*.mp4')
    for suffix in ('.mp4', '.png', '.json'):
        assert str(video.with_suffix(suffix).resolve()) in printed
        assert video.with_suffix(suffix).is_file()
    demo.main()
    assert demo.calls[2:] == ['detect']  # the toy video is there already
