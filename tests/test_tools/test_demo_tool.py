import csv
import importlib.util
import json
import sys

import cv2
import pytest
import torch
from tiny_stmixer import ROOT, write_project, write_video

from stmixer_mm.apis import init_detector


@pytest.fixture
def demo(monkeypatch):
    """Run tools/demo.py in this process."""
    path = ROOT / 'tools' / 'demo.py'
    spec = importlib.util.spec_from_file_location('tool_demo', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        tool.main()

    return run


@pytest.fixture
def project(tmp_path):
    config = write_project(tmp_path)
    torch.manual_seed(0)
    checkpoint = tmp_path / 'tiny.pth'
    torch.save(init_detector(config, None).state_dict(), checkpoint)
    video = write_video(tmp_path / 'new.mp4', frames=25, fps=10, size=(96, 64))
    return video, config, checkpoint


EVERYONE = ('--cfg-options', 'model.head.score_thr=0.0')


def test_video_and_detections_are_written(demo, project, tmp_path, capsys):
    out = tmp_path / 'new folder' / 'out.mp4'
    demo(*project, '--out', out, '--score-thr', 0, *EVERYONE)
    capture = cv2.VideoCapture(str(out))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 25
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    found = json.loads(out.with_suffix('.json').read_text())
    assert [keyframe['time_s'] for keyframe in found['keyframes']] == [0, 1, 2]
    persons = [person for key in found['keyframes'] for person in key['persons']]
    assert len(persons) == 12
    assert {a['action'] for person in persons for a in person['actions']} == {
        'stand',
        'walk',
    }
    printed = capsys.readouterr()
    assert str(out) in printed.out
    assert '25/25' in printed.err  # the progress bar
    assert len(list(out.parent.iterdir())) == 2


def test_part_of_the_video_and_other_forms(demo, project, tmp_path):
    demo(
        *project,
        *('--out', tmp_path / 'out.avi', '--start', 0.5, '--end', 1.5),
        *('--interval-s', 0.25, '--batch-size', 3),
        *('--json', tmp_path / 'a.json', '--csv', tmp_path / 'b.csv'),
        *('--label-map', tmp_path / 'actions.pbtxt', *EVERYONE),
    )
    capture = cv2.VideoCapture(str(tmp_path / 'out.avi'))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 10
    times = [0.5, 0.75, 1.0, 1.25]
    found = json.loads((tmp_path / 'a.json').read_text())
    assert [keyframe['time_s'] for keyframe in found['keyframes']] == times
    with open(tmp_path / 'b.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert sorted({float(row['time_s']) for row in rows}) == times


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        (['--out', 'out.gif'], 'out.gif has no suffix'),
        (['--out', '/dev/null/out.mp4'], 'folder of the output /dev/null'),
        (['--out', 'out.mp4', '--json', 'out.txt'], 'out.txt must end in'),
        (['--out', 'out.mp4', '--start', '7'], 'lasts from 0 s to 2.50 s'),
        (['--out', 'out.mp4', '--interval-s', '0'], 'must be positive'),
        (['--out', 'out.mp4', '--label-map', 'no.pbtxt'], 'no.pbtxt'),
        (['--out', 'out.mp4', '--device', 'cuda:77'], "'cuda:77' cannot be used"),
    ],
)
def test_wrong_arguments_are_named(
    demo, project, tmp_path, monkeypatch, capsys, args, sentence
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as leave:
        demo(*project, *args)
    assert leave.value.code == 1
    assert sentence in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('broken', ['video', 'config', 'checkpoint'])
def test_missing_files_are_named(demo, project, tmp_path, capsys, broken):
    files = dict(zip(('video', 'config', 'checkpoint'), project, strict=True))
    files[broken] = tmp_path / 'absent.xyz'
    with pytest.raises(SystemExit):
        demo(*files.values(), '--out', tmp_path / 'out.mp4')
    error = capsys.readouterr().err
    assert 'absent.xyz does not exist' in error
    assert 'Traceback' not in error
