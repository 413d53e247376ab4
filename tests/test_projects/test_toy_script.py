"""Laws of the toy scripts, bodies and drawings."""

import numpy as np
import pytest

from stmixer_mm.projects.toy import crowd, memory
from stmixer_mm.projects.toy.body import person_blobs
from stmixer_mm.projects.toy.drawing import locate, view_at
from stmixer_mm.projects.toy.generate import make_scene
from stmixer_mm.projects.toy.script import (
    ACTIONS,
    DURATION,
    Item,
    Scene,
    actions_of,
    is_moot,
    random_scene,
)

SIZE = (192, 144)


def _scene(*persons):
    return Scene(persons, (), seed=0)


def _person(legs='stand', *, arms='rest', x=0.6, **changes):
    person = random_scene(np.random.RandomState(1), 4 / 3).persons[0]
    everything = dict(height=0.5, ground_y=0.8, start_x=x, arm_side=0)
    everything['legs'] = (legs,) * (DURATION + 1)
    everything['arms'] = (arms,) * (DURATION + 1)
    return person._replace(**everything | changes)


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
    after = after._replace(start_x=0.7 + before.x_at(middle) - after.x_at(middle))
    for offset in (-0.3, -0.1, 0.2):
        here = person_blobs(before, middle + offset)
        there = person_blobs(after, middle - offset)
        for blob, twin in zip(here, there, strict=True):
            np.testing.assert_allclose(blob.points, twin.points, atol=1e-9)
            np.testing.assert_array_equal(blob.color, twin.color)


@pytest.mark.parametrize(('meet_at', 'passes'), [(2.45, True), (2.6, False)])
def test_meeting_needs_two_visible_people_who_approach(meet_at, passes):
    """Whether people meet who pass each other around the second is moot."""
    left = _person('walk_right', x=0.0, speed=0.6)
    gap = 2 * left.speed * left.height * (meet_at + 0.5)
    scene = _scene(_person('walk_left', x=gap, speed=0.6), left)
    assert is_moot(scene, 2) is passes
    for t, seen, meets in (
        (meet_at - 0.01, True, True),
        (meet_at + 0.01, True, False),
        (meet_at - 0.01, False, False),
    ):
        done = actions_of(scene, t, [True, seen])
        assert [('meet' in names) for names in done] == [meets, meets]


def test_scenes_are_annotated_without_doubt():
    counts = dict.fromkeys(range(1, len(ACTIONS) + 1), 0)
    for seed in range(25):
        scene, keyframes = make_scene([seed], SIZE)
        assert any(keyframes.values())
        for second in range(1, DURATION):
            shares = locate(view_at(scene, second), SIZE)[1]
            seen = {person.person_id for person in keyframes[second]}
            assert seen == set(np.flatnonzero(shares >= 0.5))
            assert seen == set(np.flatnonzero(shares > 0.1))
            for bbox_norm, action_ids, *_ in keyframes[second]:
                assert len([number for number in action_ids if number <= 5]) == 1
                assert 0 <= bbox_norm[0] < bbox_norm[2] <= 1
                assert 0 <= bbox_norm[1] < bbox_norm[3] <= 1
                for number in action_ids:
                    counts[number] += 1
    assert min(counts.values()) >= 0.05 * sum(counts.values()), counts


def test_memory_actions_follow_from_what_was_before():
    positives = 0
    for seed in range(20):
        scene, keyframes = make_scene([seed], SIZE, memory)
        met, had = set(), {i for item in scene.items for i in item.holders[:1]}
        for second, people in keyframes.items():
            guest = scene.guests[second]
            if guest != scene.guests[second - 1]:
                met.add(scene.guests[second - 1])
            holders = {item.holders[second] for item in scene.items}
            both = {0, guest} if guest else set()
            assert both | holders & both <= {person.person_id for person in people}
            for person in people:
                here = {memory.ACTIONS[number - 1] for number in person.action_ids}
                again = person.person_id in both and guest in met
                assert ('second_meeting' in here) is again
                if person.person_id in holders - had:
                    assert 'carries_handed_over' in here
                if 'carries_handed_over' in here:
                    assert person.person_id in holders
                positives += again
    assert positives


def test_the_frames_around_a_keyframe_do_not_tell_what_needs_memory():
    """Scripts that are the same for a second, with other actions in it."""
    rng = np.random.RandomState(0)
    now = 8
    scene = memory.random_scene(rng, 4 / 3)
    guests = (0,) * now + (1,) * (memory.DURATION + 1 - now)
    plain = scene._replace(guests=guests, items=(_ball(1, 1),))
    told = plain._replace(guests=(1, *guests[1:]), items=(_ball(0, 1),))
    for t in np.arange(now - 0.25, now + 0.3, 0.05):
        for one, other in zip(view_at(plain, t), view_at(told, t), strict=True):
            assert one[0] == other[0]
            for blob, twin in zip(one[1], other[1], strict=True):
                np.testing.assert_array_equal(blob.points, twin.points)
    done, more = (memory.actions_of(one, now, [True] * 3) for one in (plain, told))
    both = ['second_meeting', 'carries_handed_over']
    assert more == [done[0] + both[:1], done[1] + both, done[2]]


def _ball(giver, taker):
    holders = (giver,) * 3 + (taker,) * (memory.DURATION - 2)
    return Item(holders, np.array([250, 120, 10]))


def test_visible_share():
    person = _person(x=0.6)
    front = person._replace(ground_y=person.ground_y + 0.01)
    for persons, low, high in (
        ([person], [1], [1]),
        ([_person(x=-0.6)], [0], [0]),
        ([_person(x=0.0)], [0.2], [0.8]),
        ([person, front], [0, 1], [0.2, 1]),
    ):
        shares = locate(view_at(_scene(*persons), 1), SIZE).shares
        assert (np.array(low) - 1e-6 <= shares).all()
        assert (shares <= np.array(high) + 1e-6).all()


def test_a_crowd_walks_on_lines_in_all_directions_and_crosses():
    rng, times = np.random.RandomState(0), np.arange(0, DURATION, 0.1)
    angles, crossings = [], 0
    for _ in range(40):
        people = crowd.random_scene(rng, 4 / 3).persons
        assert 3 <= len(people) <= 9
        assert all(40 <= 576 * one.height <= 90 for one in people)
        ways = np.array([[(one.x_at(t), one.y_at(t)) for t in times] for one in people])
        steps = ways[:, -1] - ways[:, 0]
        angles += [*np.arctan2(steps[:, 1], steps[:, 0])]
        gaps = np.linalg.norm(ways[:, None] - ways, axis=-1).min(axis=-1)
        crossings += np.count_nonzero(gaps + np.eye(len(people)) < 0.03) / 2
    assert np.histogram(angles, 8, (-np.pi, np.pi))[0].min() > 5 and crossings > 80
