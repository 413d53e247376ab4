import json
from collections import Counter
from operator import attrgetter

import numpy as np
import pytest
from detections import keyframe
from test_annotated_detections import random_keyframe, video

from stmixer_mm.errors import UserError
from stmixer_mm.projects.annotate.convert import convert_annotations
from stmixer_mm.projects.annotate.labelstudio import read_labelstudio
from stmixer_mm.projects.annotate.records import detected_tracks, shape_at


def moment(frame, x=0.0, *, enabled=True, rotation=0):
    box = dict(x=x, y=0, width=25, height=50, rotation=rotation)
    return dict(frame=frame, enabled=enabled, time=frame / 10, **box)


def region(*sequence, key='a', count=40, labels=('person',), **entry):
    value = dict(framesCount=count, sequence=[*sequence], labels=[*labels])
    return dict(id=key, from_name='box', type='videorectangle', value=value, **entry)


def choices(*names, key='a', tag='action'):
    return dict(id=key, from_name=tag, type='choices', value=dict(choices=[*names]))


def task(*results, video='/data/upload/3/0a1b2c3d-clip.mp4', **data):
    annotations = [dict(was_cancelled=False, result=[*results])]
    return dict(id=1, data=dict(video=video, **data), annotations=annotations)


@pytest.fixture
def convert(tmp_path, write_video):
    write_video('clip.mp4')

    def convert(*tasks, **options):
        path = tmp_path / 'export.json'
        path.write_text(json.dumps(tasks))
        common = dict(videos=str(tmp_path), out=tmp_path / 'out.csv')
        return convert_annotations([str(path)], **common | options)

    return convert


def lines_of(summary):
    return [
        (time, [summary.names[number] for number in person.action_ids], *box.tolist())
        for (_, time), people in summary.keyframes.items()
        for person in people
        for box in [np.round(person.bbox_norm, 6)]
    ]


def test_by_hand(convert):
    """A keyframe that is not enabled is the last one seen; the next region goes on."""
    summary = convert(
        task(
            region(moment(1), moment(21, 20, enabled=False)),
            choices('walk'),
            choices('wave', tag='hands'),
            region(moment(22, 50), key='b', parentID='a'),
            choices('stand', key='b'),
            dict(id='c', type='timelinelabels', value=dict(ranges=[])),
            dict(type='relation', from_id='a', to_id='b'),
        ),
        dict(id=2, data=dict(video='other.mp4'), annotations=[]),
    )
    assert lines_of(summary) == [
        (0, ['walk', 'wave'], 0, 0, 0.25, 0.5),
        (1, ['walk', 'wave'], 0.1, 0, 0.35, 0.5),
        (2, ['walk', 'wave'], 0.2, 0, 0.45, 0.5),
        (3, ['stand'], 0.5, 0, 0.75, 0.5),
    ]
    assert {person.person_id for person in summary.persons} == {0}
    assert sorted((+summary.notes).values()) == [1, 2]


def test_labels_are_actions_where_there_are_no_choices(convert):
    both = region(moment(1, enabled=False), labels=('walk', 'wave'))
    assert lines_of(convert(task(both))) == [(0, ['walk', 'wave'], 0, 0, 0.25, 0.5)]


def test_a_rotated_box_turns_around_its_upper_left_corner(convert):
    """16 x 24 pixels of 64 x 48, turned by a quarter, lie to the left of it."""
    turned = task(region(moment(1, 50, rotation=90)), width=64, height=48)
    (line, *_) = lines_of(convert(turned))
    np.testing.assert_allclose(line[2:], [8 / 64, 0, 32 / 64, 16 / 48], atol=1e-6)


def accepted(path):
    """The file once an annotator has submitted its predictions."""
    (content,) = json.loads(path.read_text())
    return json.dumps([content | dict(annotations=content.pop('predictions'))]).encode()


def test_what_is_written_is_read_back_in_every_frame(tmp_path):
    """Persons come, leave, act and stop; the last box lasts to the end of the video."""
    random = np.random.RandomState(0)
    for ids in [(7, 3), (3, 7), (3,), (4, 3), (7,), ()], [(None, None)] * 6, [()] * 6:
        keyframes = [random_keyframe(random, *pair) for pair in enumerate(ids)]
        keyframes.append(keyframe(5.7, 57, [(0, 0, 9, 9)], [[]], [3]))
        detections = video(keyframes)
        detections.save(path := tmp_path / 'found.json', 'labelstudio')
        (read,) = read_labelstudio(str(path), accepted(path), Counter()).videos
        tracks = detected_tracks(detections)
        assert (len(read.tracks), read.frames) == (len(tracks), range(60))
        for track, expected in zip(read.tracks, tracks, strict=True):
            track.sort(key=attrgetter('frame'))
            last_shape = expected[-1]
            for frame in range(60):
                shape = shape_at(track, frame, interpolate=True)
                expected_shape = shape_at(expected, frame, interpolate=True)
                if frame > last_shape.frame and not last_shape.outside:
                    expected_shape = last_shape
                assert (shape is None) == (expected_shape is None)
                if shape:
                    pixels = np.multiply(shape.bbox, (48, 32) * 2) / 100
                    np.testing.assert_allclose(pixels, expected_shape.bbox, atol=1e-9)
                    actions = shape.attributes.get('action', ())
                    assert {*actions} == {*expected_shape.actions}


@pytest.mark.parametrize(
    'address',
    [
        'clip.mp4',
        's3://bucket/a%20b/clip.mp4',
        '/data/local-files/?d=videos/clip.mp4',
        'https://host/clip.mp4?key=a/b.c',
    ],
)
def test_the_video_is_named_by_its_address(convert, address):
    keyframes = convert(task(A, video=address)).keyframes
    assert {name for name, _ in keyframes} == {'clip.mp4'}


A = region(moment(1))


@pytest.mark.parametrize(
    ('tasks', 'what'),
    [
        ([task(region(moment(1), count=None))], 'framesCount'),
        ([task(region(moment(41)))], 'after frame 40'),
        ([task(region(moment(0)))], 'frame 0'),
        ([task(region(moment(1, rotation=5)))], 'width and height'),
        ([task(A), task(A, video='s3://b/clip.mp4')], 'earlier task'),
        ([task(region(moment(1), count=80))], 'framerate'),  # the video has 40
        ([task(region(moment(1, 'nan')))], 'frame 1'),
        ([task(region(moment(1), parentID='a'))], 'ancestor'),
        ([task(region(moment(1), moment(1, 5)))], 'another box'),
        ([task(A, video='gone.mp4')], 'gone.mp4'),  # and its size is not there
        ([dict(data=dict(video='clip.mp4'), box=[])], 'JSON-MIN'),
        ([task(A) | dict(annotations=[dict(result=[])] * 2)], '2 annotations'),
        ([task(A, video=3)], 'tasks with videos'),
        (['clip.mp4'], 'tasks with videos'),
        ([task()], 'no person'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_bad_export_ends_in_one_sentence(convert, tmp_path, tasks, what):
    with pytest.raises(UserError, match=rf'^(?=.*{what})[^\n]{{9,500}}\.$'):
        convert(*tasks)
    assert not list(tmp_path.glob('*.csv'))
