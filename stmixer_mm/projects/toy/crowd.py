"""The script of a toy video of many small people, as a fixed camera high up sees them.

They walk along lines in all directions, cross, and stop for a while. Units are those of
:mod:`stmixer_mm.projects.toy.script`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import RandomState

from stmixer_mm.projects.toy import script
from stmixer_mm.projects.toy.script import ACTIONS, DURATION, Person, Scene

HEIGHTS = 40 / 576, 90 / 576


def actions_of(scene: Scene, t: float, is_visible: Sequence[bool]) -> list[list[str]]:
    """Actions as :func:`script.actions_of`; in a crowd no one meets anyone."""
    return script.actions_of(scene, t, [False for _ in is_visible])


def is_ambiguous(scene: Scene, second: int) -> bool:
    return False


def random_scene(rng: RandomState, aspect: float) -> Scene:
    """Draw a script of 3 to 9 people, each second of whom crosses the one before."""
    persons: list[Person] = []
    for number in range(rng.randint(3, 10)):
        if number % 2 == 0:
            place = rng.uniform((0.2 * aspect, 0.3), (0.8 * aspect, 0.85))
            time = rng.uniform(1, DURATION - 1)
        persons.append(_random_walker(rng, aspect, place, time))
    return Scene(tuple(persons), (), seed=rng.randint(2**31))


def _random_walker(
    rng: RandomState, aspect: float, place: np.ndarray, time: float
) -> Person:
    """Somebody whose feet are near a place at a time, if they do not stop before."""
    actor = script.random_scene(rng, aspect).persons[0]  # clothes, arms, yaw
    way = str(rng.choice(['walk_left', 'walk_right']))
    legs = [way] * (DURATION + 1)
    if rng.rand() < 0.5:
        start = rng.randint(DURATION)
        stop = str(rng.choice([action for action in ACTIONS[:5] if action != way]))
        legs[start : start + 3] = [stop] * len(legs[start : start + 3])
    height = rng.uniform(*HEIGHTS)
    walker = actor._replace(
        height=height,
        speed=rng.uniform(0.6, 1.1),
        legs=tuple(legs),
        slope=np.tan(rng.uniform(-1.1, 1.1)),
        start_x=0.0,
    )
    x, y = place + rng.uniform(-0.1, 0.1, 2) * height
    return walker._replace(
        start_x=x - walker.x_at(time), ground_y=y - walker.y_at(time) + walker.ground_y
    )
