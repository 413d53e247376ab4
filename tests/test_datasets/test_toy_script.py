"""Laws of the toy scripts, poses and drawings."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from stmixer_mm.datasets.toy.drawing import extent, locate, paint, person_blobs, render
from stmixer_mm.datasets.toy.generate import make_scene
from stmixer_mm.datasets.toy.pose import ARM, THIGH, pose_at
from stmixer_mm.datasets.toy.script import (
    ACTIONS,
    CLEAR,
    DURATION,
    HIDDEN,
    KEYFRAMES,
    Camera,
    Prop,
    actions_of,
    has_passing,
    random_scene,
)

SIZE = (192, 144)
STILL = Camera(
    drift=0.0,
    pan=(0.0, 0.0),
    pan_rate=0.2,
    zoom=(1.0, 0.0),
    roll=0.0,
    shake=0.0,
    phase=0.0,
)
MOVING = Camera(
    drift=0.04,
    pan=(0.06, 0.03),
    pan_rate=0.3,
    zoom=(1.05, 0.08),
    roll=0.04,
    shake=0.005,
    phase=0.3,
)


def _scene(*persons, camera=STILL, props=()):
    scene = random_scene(np.random.RandomState(0), 4 / 3)
    return replace(scene, persons=persons, camera=camera, props=props)


def _person(legs='stand', *, arms='rest', x=0.6, **changes):
    person = random_scene(np.random.RandomState(1), 4 / 3).persons[0]
    everything = {
        'height': 0.5,
        'ground_y': 0.8,
        'start_x': x,
        'legs': (legs,) * (DURATION + 1),
        'arms': (arms,) * (DURATION + 1),
    }
    return replace(person, **{**everything, **changes})


def _persons(count=12):
    for seed in range(count):
        yield from random_scene(np.random.RandomState(seed), 4 / 3).persons


def test_bones_keep_their_length():
    for person in _persons():
        for t in np.linspace(0, DURATION, 23):
            pose = pose_at(person, t)
            for side in (0, 1):
                thigh = np.linalg.norm(pose.hips[side] - pose.knees[side])
                arm = np.linalg.norm(pose.shoulders[side] - pose.elbows[side])
                assert thigh <= THIGH * 1.08
                assert thigh == pytest.approx(
                    np.linalg.norm(pose.knees[side] - pose.feet[side])
                )
                assert arm == pytest.approx(ARM)


def test_bodies_move_smoothly():
    step = 1 / 240  # so short that a jump of a joint would stand out
    for person in _persons(4):
        poses = [pose_at(person, t) for t in np.arange(0, DURATION, step)]
        joints = np.array([[*p.hands, *p.knees, *p.feet, p.head] for p in poses])
        assert np.abs(np.diff(joints, axis=0)).max() / step < 8  # body heights a second
        xs = [person.x_at(t) for t in np.arange(0, DURATION, step)]
        limit = person.speed * person.height * step
        assert np.abs(np.diff(xs)).max() <= limit + 1e-9


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        (('walk_left', 'rest'), ('walk_right', 'rest')),
        (('stand', 'raise_arm'), ('stand', 'lower')),
    ],
)
def test_one_frame_does_not_tell_the_direction_of_time(one, other):
    """Each picture of one action is a picture of its opposite, at another time."""
    before = _person(one[0], arms=one[1], x=0.7)
    after = _person(other[0], arms=other[1], x=0.7)
    middle = 2.0
    after = replace(after, start_x=0.7 + before.x_at(middle) - after.x_at(middle))
    for offset in (-0.3, -0.1, 0.2):
        here = person_blobs(before, middle + offset)
        there = person_blobs(after, middle - offset)
        for blob, twin in zip(here, there, strict=True):
            np.testing.assert_allclose(blob.points, twin.points, atol=1e-9)
            assert blob.color == twin.color


@pytest.mark.parametrize(
    ('legs', 'arms', 'moves'),
    [
        ('stand', 'rest', False),
        ('stand', 'hold', False),
        ('walk_left', 'rest', True),
        ('jump', 'rest', True),
        ('squat', 'rest', True),
        ('stand', 'wave', True),
        ('stand', 'raise_arm', True),
    ],
)
def test_only_still_people_keep_still(legs, arms, moves):
    person = _person(legs, arms=arms)
    times = 3 + np.linspace(-0.35, 0.35, 8)
    points = [
        np.concatenate([blob.points for blob in person_blobs(person, t)]) for t in times
    ]
    moved = np.ptp(points, axis=0).max() / person.height
    assert moved > 0.15 if moves else moved < 1e-9


def test_labels_follow_the_script():
    walker = _person('walk_left', arms='wave')
    assert actions_of(_scene(walker), 2, [True]) == [['walk_left', 'wave']]
    assert actions_of(_scene(_person(arms='hold')), 2, [True]) == [['stand']]
    assert actions_of(_scene(_person(arms='lower')), 2, [True]) == [['stand']]


@pytest.mark.parametrize(
    ('left', 'right', 'seen', 'meets'),
    [
        ('walk_right', 'walk_left', True, True),
        ('walk_left', 'walk_right', True, False),
        ('walk_right', 'walk_right', True, False),
        ('walk_right', 'stand', True, False),
        ('walk_right', 'walk_left', False, False),
    ],
)
def test_meeting_needs_two_visible_people_who_approach(left, right, seen, meets):
    scene = _scene(_person(left, x=0.0), _person(right, x=1.3))
    actions = actions_of(scene, 1, [True, seen])
    assert [('meet' in done) for done in actions] == [meets, meets]
    swapped = replace(scene, persons=scene.persons[::-1])
    assert actions_of(swapped, 1, [seen, True]) == actions[::-1]


def test_people_who_pass_each_other_are_noticed():
    speed = 0.6
    left = _person('walk_right', x=0.0, speed=speed)
    right = _person('walk_left', x=0.0, speed=speed)
    for meet_at, passes in ((2.0, True), (2.45, True), (2.6, False), (1.4, False)):
        gap = 2 * speed * left.height * meet_at
        scene = _scene(replace(right, start_x=gap), left)
        assert has_passing(scene, 2) is passes


def test_scenes_are_annotated_without_doubt():
    for seed in range(8):
        scene, rows = make_scene([seed], SIZE)
        assert rows
        for second in KEYFRAMES:
            shares = locate(scene, second, SIZE)[1]
            assert np.all((shares <= HIDDEN) | (shares >= CLEAR))
            here = [row for row in rows if row[0] == second]
            assert {row[3] for row in here} == set(np.flatnonzero(shares >= CLEAR))
            for person in {row[3] for row in here}:
                done = [ACTIONS[row[2] - 1] for row in here if row[3] == person]
                assert len(set(done)) == len(done)
                assert len(set(done) & set(ACTIONS[:5])) == 1
        bboxes = np.array([row[1] for row in rows])
        assert bboxes.min() >= 0 and bboxes.max() <= 1
        assert np.all(bboxes[:, 2:] > bboxes[:, :2])


def test_cameras_keep_shapes():
    for t in (0.0, 1.3, 4.0):
        linear = MOVING.matrix(t, SIZE)[:, :2]
        gram = linear @ linear.T
        np.testing.assert_allclose(gram, gram[0, 0] * np.eye(2), atol=1e-9)
    np.testing.assert_allclose(
        STILL.matrix(2.0, SIZE), [[144, 0, 0], [0, 144, 0]], atol=1e-9
    )


@pytest.mark.parametrize('camera', [STILL, MOVING])
@pytest.mark.parametrize('legs', ACTIONS[:5])
def test_boxes_touch_the_drawing(camera, legs):
    person = _person(legs, arms='wave')
    person = replace(person, start_x=person.start_x + 0.6 - person.x_at(1.5))
    for t in (1.0, 2.0):
        matrix = camera.matrix(t, SIZE)
        blobs = person_blobs(person, t)
        fine = 8  # the mask is drawn at this many times the size
        mask = np.zeros((fine * SIZE[1], fine * SIZE[0]), np.uint8)
        paint(mask, [blob._replace(color=255) for blob in blobs], fine * matrix)
        x, y, w, h = np.array(cv2.boundingRect(mask)) / fine
        drawn = [x, y, x + w, y + h]
        np.testing.assert_allclose(extent(blobs, matrix), drawn, atol=0.3)
        located = locate(_scene(person, camera=camera), t, SIZE)
        np.testing.assert_allclose(located[0][0], extent(blobs, matrix), atol=1e-9)


def test_visible_share():
    person = _person(x=0.6)

    def share(*persons, props=()):
        return locate(_scene(*persons, props=props), 1, SIZE)[1]

    assert share(person) == pytest.approx([1])
    assert share(_person(x=-0.6)) == pytest.approx([0])
    assert 0.2 < share(_person(x=0.0))[0] < 0.8
    nearer = replace(person, ground_y=person.ground_y + 0.01)
    behind, front = share(person, nearer)
    assert behind < 0.2 and front == 1
    bush = Prop('bush', x=0.6, ground_y=0.9, size=0.3, seed=0)
    assert share(person, props=[bush])[0] < 0.9
    assert share(person, props=[replace(bush, ground_y=0.7)])[0] == 1


def test_frames_show_the_person_inside_the_box():
    scene = _scene(_person('jump'), camera=MOVING)
    times = [1.0, 1.5]
    without = render(replace(scene, persons=()), times, SIZE)
    for t, frame, empty in zip(times, render(scene, times, SIZE), without, strict=True):
        assert frame.shape == (SIZE[1], SIZE[0], 3) and frame.dtype == np.uint8
        changed = np.any(frame != empty, axis=2)
        x, y, w, h = cv2.boundingRect(changed.astype(np.uint8))
        bbox = locate(scene, t, SIZE)[0][0]
        np.testing.assert_allclose([x, y, x + w, y + h], bbox, atol=1.5)


def test_the_camera_moves_the_whole_picture():
    """Content follows the camera's map: a frame is the first one, warped."""
    first, second = render(_scene(camera=MOVING), [1.0, 1.2], SIZE)
    matrices = [np.vstack([MOVING.matrix(t, SIZE), [0, 0, 1]]) for t in (1.0, 1.2)]
    change = (matrices[1] @ np.linalg.inv(matrices[0]))[:2]
    change[:, 2] += 0.5 * change[:, :2].sum(1) - 0.5
    warped = cv2.warpAffine(first, change, SIZE)
    inner = (slice(20, -20), slice(20, -20))
    error = np.abs(warped[inner].astype(int) - second[inner]).mean()
    still = np.abs(first[inner].astype(int) - second[inner]).mean()
    assert error < 0.5 * still


def test_every_action_is_frequent():
    counts = dict.fromkeys(range(1, len(ACTIONS) + 1), 0)
    for seed in range(40):
        for row in make_scene([seed], SIZE)[1]:
            counts[row[2]] += 1
    assert min(counts.values()) >= 0.05 * sum(counts.values()), counts


def test_walks_change_only_between_keyframes():
    for person in _persons(6):
        for second in KEYFRAMES:
            times = second + np.linspace(-0.45, 0.45, 7)
            velocities = [
                (person.x_at(b) - person.x_at(a)) / (b - a) for a, b in pairwise(times)
            ]
            assert np.ptp(velocities) < 1e-6
