"""stmixer summary: who did what for how long."""

import csv

import cv2
import pytest
from run_tool import run_and_fail, run_tool

from stmixer_mm.apis.tracking import list_tubes
from stmixer_mm.projects.results.summary import add_up, summarize
from stmixer_mm.structures import Action, Keyframe, Person, VideoDetections


def detect(source, *keyframes, with_ids=True):
    """A video of keyframes a second apart, each a dict of ids and actions."""
    moments = [
        Keyframe(
            time_s=float(place),
            frame_index=10 * place,
            persons=[
                Person(
                    id=number if with_ids else None,
                    bbox=(0, 0, 1, 1),
                    actions=[Action(name, 0.9) for name in names],
                )
                for number, names in persons.items()
            ],
        )
        for place, persons in enumerate(keyframes)
    ]
    tubes = list_tubes(moments) if with_ids else None
    return VideoDetections(source=source, keyframes=moments, tubes=tubes)


FIRST = detect('a.mp4', {0: ['sit']}, {0: ['sit'], 1: ['wave']}, {0: []}, {0: ['sit']})
SECOND = detect('b.mp4', {0: ['wave']}, {0: ['wave']})


def test_stretches_of_an_action_add_up():
    assert summarize(FIRST) == [
        ('a.mp4', 0, 'sit', 0.0, 4.0, 3.0, 2),
        ('a.mp4', 1, 'wave', 1.0, 2.0, 1.0, 1),
    ]


def test_totals_are_of_all_videos():
    rows = summarize(FIRST) + summarize(SECOND)
    assert add_up(rows) == [('sit', 1, 3.0, 2), ('wave', 2, 3.0, 2)]


def test_the_tool_writes_a_table_and_a_picture(tmp_path, capsys):
    for name, detections in dict(a=FIRST, b=SECOND).items():
        detections.save(tmp_path / f'{name}.json')
    run_tool('summary', tmp_path)
    assert (
        'wave                           2       3.0      2' in capsys.readouterr().out
    )
    rows = list(csv.DictReader((tmp_path / 'summary.csv').open()))
    assert [(row['video'], row['seconds']) for row in rows] == [
        ('a.mp4', '3.0'),
        ('a.mp4', '1.0'),
        ('b.mp4', '2.0'),
    ]
    assert cv2.imread(str(tmp_path / 'summary.png')) is not None


def test_persons_need_ids(tmp_path, capsys):
    detect('a.mp4', {0: ['sit']}, with_ids=False).save(tmp_path / 'a.json')
    assert 'has no ids of persons' in run_and_fail(capsys, 'summary', tmp_path)


@pytest.mark.parametrize('text', ['{}', '[', '{"version": 2}'])
def test_other_files_are_named(tmp_path, capsys, text):
    (tmp_path / 'a.json').write_text(text)
    line = run_and_fail(capsys, 'summary', tmp_path)
    assert 'a.json is no JSON file of detections' in line


def test_a_folder_without_results(tmp_path, capsys):
    assert 'has no JSON file' in run_and_fail(capsys, 'summary', tmp_path)
