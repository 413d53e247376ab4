"""Scripts with two actions that no clip shows, only what was before it.

A host is visited by guests, who leave the picture and may come back: ``second_meeting``
is to stand beside somebody with whom an earlier meeting has ended. Some carry a ball
from the start, others ``carries_handed_over`` one: in a clip these look alike.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState

from stmixer_mm.projects.toy import script
from stmixer_mm.projects.toy.script import Item, Person, Scene, is_ambiguous  # noqa: F401

ACTIONS = (*script.ACTIONS, 'second_meeting', 'carries_handed_over')
DURATION = 12  # seconds of a video
CARRY = 0.45  # share of persons with a ball at the start
HAND_OVER = 0.9  # share of meetings in which a ball changes hands, where one can

_STILL = ('stand', 'stand', 'jump', 'squat')
_BALLS = np.array([(250, 120, 10), (250, 230, 40), (230, 40, 200), (40, 230, 230)])


class Visit(NamedTuple):
    """Host (person 0) and guest approach in second ``start`` and part in ``end``."""

    guest: int
    start: int
    end: int


def actions_of(scene: Scene, t: float, is_visible: Sequence[bool]) -> list[list[str]]:
    """Actions as :func:`script.actions_of`, with the two that need a memory."""
    actions = script.actions_of(scene, t, is_visible)
    second = round(t)
    *earlier, guest = (guest for guest, _ in groupby(scene.guests[: second + 1]))
    if guest and guest in earlier:
        actions[0].append('second_meeting')
        actions[guest].append('second_meeting')
    for item in scene.items:
        holder = item.holders[second]
        if {*item.holders[:second]} - {holder}:
            actions[holder].append('carries_handed_over')
    return actions


def random_scene(rng: RandomState, aspect: float) -> Scene:
    """Draw a script for frames that are ``aspect`` times as wide as high."""
    sides = rng.choice([-1, 1], 3)  # where a guest stands
    visits = _random_visits(rng, sides)
    guests = np.zeros(DURATION + 1, int)
    for guest, start, end in visits:
        guests[start + 1 : end] = guest
    items = _random_items(rng, visits, len(sides))
    persons = _random_persons(rng, aspect, sides, visits, items)
    return Scene(persons, (), rng.randint(2**31), items, tuple(guests.tolist()))


def _random_visits(rng: RandomState, sides: np.ndarray) -> list[Visit]:
    visits: list[Visit] = []
    start = rng.randint(2)
    while True:
        guest = int(rng.randint(1, len(sides)))
        if visits and sides[guest] == sides[visits[-1].guest]:
            start += 2  # the other one is out of view by then
        if start >= DURATION:
            return visits
        visits.append(Visit(guest, start, start + rng.randint(3, 5)))
        start = visits[-1].end + 1


def _random_items(
    rng: RandomState, visits: Sequence[Visit], count: int
) -> tuple[Item, ...]:
    """Balls of those who carry one, handed over half-way in some of the meetings."""
    carriers = np.flatnonzero(rng.rand(count) < CARRY)
    holders = np.repeat(carriers[:, None], DURATION + 1, axis=1)
    for guest, start, end in visits:
        pair = (0, guest)
        (balls,) = np.isin(holders[:, start], pair).nonzero()
        if len(balls) == 1 and end - start > 2 and rng.rand() < HAND_OVER:
            ball = balls[0]
            holders[ball, (start + end) // 2 + 1 :] = sum(pair) - holders[ball, start]
    return tuple(
        Item(tuple(row), _BALLS[rng.randint(len(_BALLS))]) for row in holders.tolist()
    )


def _random_persons(
    rng: RandomState,
    aspect: float,
    sides: np.ndarray,
    visits: Sequence[Visit],
    items: Sequence[Item],
) -> tuple[Person, ...]:
    """Persons who walk as the visits want it, and else stand, jump or squat."""
    count = len(sides)
    height = rng.uniform(0.55, 0.68) * min(1, 0.75 * aspect)
    apart = rng.uniform(0.4, 0.5, count) * height  # in a meeting
    steps = rng.uniform(0.215, 0.245, count) * aspect  # of a second
    steps[0] = 0.335 * aspect - apart.mean()
    start_x = aspect / 2 + sides * (steps[0] + apart)
    start_x[0] = aspect / 2
    legs = rng.choice(_STILL, (count, DURATION + 1)).astype('U10')
    for guest, start, end in visits:
        out, back = ('walk_left', 'walk_right')[:: -sides[guest]]
        legs[0, start], legs[0, end : end + 1] = out, back
        legs[guest, max(0, start - 1) : start + 1] = back
        legs[guest, end : end + 2] = out
    for guest in range(1, count):
        first = min((v.start for v in visits if v.guest == guest), default=1)
        start_x[guest] += sides[guest] * steps[guest] * min(2, first + 1)

    persons = []
    for number in range(count):
        person = script.random_person(rng, aspect, start_x[number], DURATION)
        held = {k for item in items for k, i in enumerate(item.holders) if i == number}
        arms = ('rest' if k in held else name for k, name in enumerate(person.arms))
        changes = dict(legs=tuple(legs[number].tolist()), arms=tuple(arms))
        changes |= dict(height=height, speed=steps[number] / height)
        changes |= dict(ground_y=0.36 + 0.76 * height + rng.uniform(-0.03, 0.03))
        persons.append(person._replace(**changes))
    return tuple(persons)
