import csv
import json

import numpy as np

from stmixer_mm.apis.results import KeyframeDetections, VideoDetections


def video(keyframes):
    size = dict(fps=10.0, width=48, height=32, total_frames=60)
    return VideoDetections(source='a,b.mp4', keyframes=keyframes, **size)


FOUND = [
    KeyframeDetections(
        1.0, 10, np.array([[1, 2, 3, 4], [5, 6, 7.25, 8]]),
        [[('walk', 0.9), ('wäve', 0.5)], []],
    ),
    KeyframeDetections(2.0, 20, np.zeros((0, 4)), []),
]  # fmt: skip


def test_json_holds_every_detection(tmp_path):
    video(FOUND).save(tmp_path / 'out.json')
    assert json.loads((tmp_path / 'out.json').read_text()) == dict(
        version=1,
        video='a,b.mp4',
        fps=10.0,
        width=48,
        height=32,
        total_frames=60,
        keyframes=[
            dict(
                time_s=1.0,
                frame=10,
                persons=[
                    dict(
                        bbox=[1, 2, 3, 4],
                        actions=[
                            dict(action='walk', score=0.9),
                            dict(action='wäve', score=0.5),
                        ],
                    ),
                    dict(bbox=[5, 6, 7.25, 8], actions=[]),
                ],
            ),
            dict(time_s=2.0, frame=20, persons=[]),
        ],
    )


def test_csv_has_a_row_per_person_and_action(tmp_path):
    video(FOUND).save(tmp_path / 'out.csv')
    with open(tmp_path / 'out.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['action'] for row in rows] == ['walk', 'wäve', '']
    assert [row['score'] for row in rows] == ['0.9', '0.5', '']
    assert [row['x1'] for row in rows] == ['1.0', '1.0', '5.0']
    assert list(rows[0])[:4] == ['video', 'time_s', 'frame', 'x1']
    assert rows[2]['x2'] == '7.25'
    assert {row['video'] for row in rows} == {'a,b.mp4'}


TRACKED = [
    FOUND[0]._replace(ids=[3, 1]),
    FOUND[1]._replace(ids=[]),
    FOUND[0]._replace(frame_index=30, time_s=3.0, ids=[1, 3]),
    FOUND[0]._replace(
        frame_index=40, time_s=4.0, ids=[1, 3], actions=[[('walk', 0.6)], []]
    ),
]


def test_json_of_persons_with_ids_has_tubes(tmp_path):
    video(TRACKED).save(tmp_path / 'out.json')
    found = json.loads((tmp_path / 'out.json').read_text())
    ids = [[one['id'] for one in frame['persons']] for frame in found['keyframes']]
    assert ids == [[3, 1], [], [1, 3], [1, 3]]
    once = dict(first_frame=10, last_frame=10)
    late = dict(first_frame=30, last_frame=30)
    assert found['tubes'] == [
        dict(
            id=3,
            first_frame=10,
            last_frame=40,
            actions=[
                dict(action='walk', score=0.9, **once),
                dict(action='wäve', score=0.5, **once),
            ],
        ),
        dict(
            id=1,
            first_frame=10,
            last_frame=40,
            actions=[
                dict(action='walk', score=0.75, first_frame=30, last_frame=40),
                dict(action='wäve', score=0.5, **late),
            ],
        ),
    ]


def test_csv_of_persons_with_ids_has_a_column_more(tmp_path):
    video(TRACKED[:1]).save(tmp_path / 'out.csv')
    video(FOUND[:1]).save(tmp_path / 'plain.csv')
    tracked, plain = (
        list(csv.reader((tmp_path / name).read_text('utf-8').splitlines()))
        for name in ('out.csv', 'plain.csv')
    )
    assert [row[:-1] for row in tracked] == plain
    assert [row[-1] for row in tracked] == ['id', '3', '3', '1']
