"""Laws of the toy scripts, bodies and drawings."""

import numpy as np
import pytest

from stmixer_mm.projects.toy import memory
from stmixer_mm.projects.toy.body import person_blobs
from stmixer_mm.projects.toy.drawing import locate, view_at
from stmixer_mm.projects.toy.generate import make_scene
from stmixer_mm.projects.toy.script import (
    ACTIONS,
    DURATION,
    random_scene,
)

SIZE = (192, 144)


def _person(legs='stand', *, arms='rest', x=0.6, **changes):
    person = random_scene(np.random.RandomState(1), 4 / 3).persons[0]
    everything = dict(height=0.5, ground_y=0.8, start_x=x, arm_side=0)
    everything['legs'] = (legs,) * (DURATION + 1)
    everything['arms'] = (arms,) * (DURATION + 1)
    return person._replace(**everything | changes)


@pytest.mark.parametrize(
    ('action', 'opposite'),
    [
        (('walk_left', 'rest'), ('walk_right', 'rest')),
        (('stand', 'raise_arm'), ('stand', 'lower')),
    ],
)
def test_one_frame_does_not_tell_the_direction_of_time(action, opposite):
    """Each picture of one action is a picture of its opposite, at another time."""
    person = _person(action[0], arms=action[1], x=0.7)
    mirrored = _person(opposite[0], arms=opposite[1], x=0.7)
    middle = 2.0
    shift = person.x_at(middle) - mirrored.x_at(middle)
    mirrored = mirrored._replace(start_x=0.7 + shift)
    for offset in (-0.3, -0.1, 0.2):
        blobs = person_blobs(person, middle + offset)
        mirrored_blobs = person_blobs(mirrored, middle - offset)
        for blob, twin in zip(blobs, mirrored_blobs, strict=True):
            np.testing.assert_allclose(blob.points, twin.points, atol=1e-9)
            np.testing.assert_array_equal(blob.color, twin.color)


def test_scenes_are_annotated_without_doubt():
    counts = dict.fromkeys(range(1, len(ACTIONS) + 1), 0)
    for seed in range(25):
        scene, keyframes = make_scene([seed], SIZE)
        assert any(keyframes.values())
        for second in range(1, DURATION):
            shares = locate(view_at(scene, second), SIZE)[1]
            visible = {person.person_id for person in keyframes[second]}
            assert visible == set(np.flatnonzero(shares >= 0.5))
            assert visible == set(np.flatnonzero(shares > 0.1))
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
            meeting = {0, guest} if guest else set()
            annotated = {person.person_id for person in people}
            assert meeting | holders & meeting <= annotated
            for person in people:
                actions = {memory.ACTIONS[number - 1] for number in person.action_ids}
                again = person.person_id in meeting and guest in met
                assert ('second_meeting' in actions) is again
                if person.person_id in holders - had:
                    assert 'carries_handed_over' in actions
                if 'carries_handed_over' in actions:
                    assert person.person_id in holders
                positives += again
    assert positives
