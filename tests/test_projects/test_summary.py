"""stmixer summary and clips: who did what for how long, and these parts of the videos."""

import csv

import cv2
import numpy as np
import pytest
from detections import keyframe
from run_tool import run_and_fail, run_tool

from stmixer_mm.apis.tracking import list_tubes
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.projects.results.summary import add_up, summarize
from stmixer_mm.structures import VideoDetections


def detect(source, *seconds, with_ids=True):
    """A video of keyframes a second apart, each a dict of ids and actions."""
    keyframes = []
    for second, persons in enumerate(seconds):
        actions = [[(name, 0.9) for name in names] for names in persons.values()]
        bboxes, ids = [(0, 0, 9, 9)] * len(persons), [*persons] if with_ids else None
        keyframes.append(keyframe(float(second), 10 * second, bboxes, actions, ids))
    tubes = list_tubes(keyframes) if with_ids else None
    options = dict(fps=10, total_frames=10 * len(seconds))
    return VideoDetections(source=source, keyframes=keyframes, tubes=tubes, **options)


FIRST = detect('a.mp4', {0: ['sit']}, {0: ['sit'], 1: ['wave']}, {0: []}, {0: ['sit']})
SECOND = detect('b.mp4', {0: ['wave']}, {0: ['wave']})


def test_stretches_of_an_action_add_up():
    rows = summarize(FIRST)
    assert rows == [
        ('a.mp4', 0, 'sit', 0.0, 4.0, 3.0, 2),
        ('a.mp4', 1, 'wave', 1.0, 2.0, 1.0, 1),
    ]
    assert add_up(rows + summarize(SECOND)) == [('sit', 1, 3.0, 2), ('wave', 2, 3.0, 2)]


def test_the_tool_writes_a_table_and_a_picture(tmp_path, capsys):
    for name, detections in dict(a=FIRST, b=SECOND).items():
        detections.save(tmp_path / f'{name}.json')
    run_tool('summary', tmp_path)
    assert 'wave                           2       3.0' in capsys.readouterr().out
    rows = csv.DictReader((tmp_path / 'summary.csv').open())
    seconds = [(row['video'], row['seconds']) for row in rows]
    assert seconds == [('a.mp4', '3.0'), ('a.mp4', '1.0'), ('b.mp4', '2.0')]
    assert cv2.imread(str(tmp_path / 'summary.png')) is not None


@pytest.mark.parametrize('text', [None, '[', '{"version": 2}', 'no ids'])
def test_folders_without_results(tmp_path, capsys, text):
    file = tmp_path / 'a.json'
    if text == 'no ids':
        detect('a.mp4', {0: ['sit']}, with_ids=False).save(file)
    elif text:
        file.write_text(text)
    assert str(file if text else tmp_path) in run_and_fail(capsys, 'summary', tmp_path)


@pytest.fixture
def folder(write_video, tmp_path):
    """Results of a video of 4 s at 10 fps: person 0 waves twice, 1 sits."""
    persons = {0: ['wave'], 1: []}, {0: [], 1: ['sit']}, {}, {0: ['wave']}
    detect(str(write_video('a.mp4')), *persons).save(tmp_path / 'a.json')
    return tmp_path


@pytest.mark.parametrize(
    ('pad', 'spans'),
    [(0.5, {'0.00': range(15), '2.50': range(25, 40)}), (1, {'0.00': range(40)})],
)
def test_a_clip_shows_the_frames_of_its_stretch(folder, frame_number, pad, spans):
    """Its name says whose it is; stretches that touch are one clip."""
    run_tool('clips', folder, '--action', 'wave', '--pad', pad)
    clips = {path.name: open_video(path) for path in (folder / 'clips').iterdir()}
    assert {*clips} == {f'a_person0_{start}s_wave.mp4' for start in spans}
    for start, frames in spans.items():
        video = clips[f'a_person0_{start}s_wave.mp4']
        pictures = video.pictures(range(len(video)))
        assert [frame_number(picture) for _, picture in pictures] == [*frames]
        np.testing.assert_allclose(video.times, np.arange(len(frames)) / 10, atol=2e-3)


@pytest.mark.parametrize('source', [None, 'gone.mp4', 'rtsp://camera/1'])
def test_actions_and_videos_that_are_not_there(folder, capsys, source):
    detections = VideoDetections.load(folder / 'a.json')
    detections.source = source or detections.source
    detections.save(folder / 'a.json')
    action = 'wave' if source else 'jump'
    line = run_and_fail(capsys, 'clips', folder, '--action', action)
    assert (source or 'no stretch of jump') in line
