"""The demo's order of steps, with stand-ins for the tools that it calls."""

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'run_demo.py'
FAKE_TOOL = """
import json, sys
from pathlib import Path

name, options = Path(sys.argv[0]).stem, sys.argv[1:]
with open('calls', 'a') as calls:
    calls.write(json.dumps([name, *options]) + '\\n')
if Path('fail').exists() and Path('fail').read_text() == name:
    sys.exit(3)
folder = Path(options[options.index('--work-dir') + 1]) if '--work-dir' in options else None
if name == 'make_toy_dataset':
    data = Path(options[options.index('--out') + 1])
    data.mkdir(parents=True)
    (data / 'val.csv').write_text('clip7.mp4,1.0,0,0,1,1,1,0\\n')
elif name == 'train':
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
elif name == 'test':
    (folder / '20260101_000000').mkdir(parents=True, exist_ok=True)
    scores = {'mAP/walk': 0.5, 'mAP/overall': 0.875}
    (folder / '20260101_000000' / '20260101_000000.json').write_text(json.dumps(scores))
"""


@pytest.fixture
def demo(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location('run_demo', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tools = tmp_path / 'tools'
    tools.mkdir()
    for name in ('make_toy_dataset', 'train', 'test', 'demo'):
        (tools / f'{name}.py').write_text(FAKE_TOOL)
    monkeypatch.setattr(module, 'TOOLS', tools)
    monkeypatch.chdir(tmp_path)
    return module


def calls():
    lines = Path('calls').read_text().splitlines()
    Path('calls').unlink()
    return [json.loads(line) for line in lines]


def test_it_makes_trains_tests_draws_and_says_the_score(demo, capfd):
    demo.main(['--config', 'c.py', '--toy-options', '--seed 3', '--cfg-options', 'a=1'])
    make, train, test, draw = calls()
    assert make == ['make_toy_dataset', '--out', 'data/toy', '--seed', '3']
    assert train[:4] == ['train', 'c.py', '--work-dir', 'work_dirs/demo']
    assert train[-2:] == test[-2:] == draw[-2:] == ['--cfg-options', 'a=1']
    assert test[1:3] == ['c.py', 'work_dirs/demo/epoch_3.pth']
    assert draw[1:4] == [
        'data/toy/videos/clip7.mp4',
        'c.py',
        'work_dirs/demo/epoch_3.pth',
    ]
    said = capfd.readouterr().out
    assert 'val mAP/overall: 0.875' in said
    assert f'video: {Path("work_dirs/demo/demo.mp4").resolve()}' in said


def test_an_interruption_ends_in_one_line(demo, monkeypatch):
    def interrupt(command, env):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.subprocess, 'run', interrupt)
    with pytest.raises(SystemExit, match='interrupted; the same command goes on'):
        demo.main([])


def test_an_interrupted_training_goes_on_and_a_finished_one_starts_anew(demo):
    Path('fail').write_text('test')
    with pytest.raises(SystemExit, match=r'test\.py ended with status 3'):
        demo.main([])
    assert [call[0] for call in calls()] == ['make_toy_dataset', 'train', 'test']
    Path('fail').unlink()

    demo.main([])
    interrupted = calls()
    assert [call[0] for call in interrupted] == ['train', 'test', 'demo']
    assert '--resume' in interrupted[0]

    demo.main([])
    assert '--resume' not in calls()[0]
