"""The script of a toy video: who does what when.

Lengths are in frame heights (x to the right from the view's left edge, y down from its
top edge), times in seconds. What a person does changes only half-way between two whole
seconds, so that around a keyframe (a whole second) nothing changes for about a second.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState

ACTIONS = (
    *('stand', 'walk_left', 'walk_right', 'jump', 'squat'),  # one at a time
    *('wave', 'raise_arm', 'meet'),  # at the same time
)
DURATION = 6  # seconds of a video
SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2

_DIRECTION = {'walk_left': -1, 'walk_right': 1}
# What arms do next; those that rest, are held up or sink have no label.
_NEXT_ARMS = {
    'rest': ('rest', 'raise_arm', 'raise_arm', 'wave'),
    'raise_arm': ('wave', 'wave', 'hold', 'lower'),
    'hold': ('lower', 'wave'),
    'wave': ('wave', 'rest', 'rest', 'lower'),
    'lower': ('rest', 'rest', 'raise_arm'),
}
_SKINS = np.array([(255, 220, 190), (210, 160, 120), (105, 70, 50)])
_HAIRS = np.array([(30, 25, 20), (110, 70, 30), (215, 180, 95), (150, 150, 150)])


class Person(NamedTuple):
    """An actor, who does ``legs[k]`` and ``arms[k]`` around second k.

    ``yaw`` is where the body faces (0 the viewer, pi / 2 the right), which says nothing
    about where it walks; ``arm_side`` is the arm that acts (1 the person's left, 0 both).
    """

    height: float
    ground_y: float
    start_x: float  # half a second before the start
    speed: float  # body heights a second
    yaw: float
    legs: tuple[str, ...]
    arms: tuple[str, ...]
    arm_side: int
    phase: float  # of repeated movements, 0 to 1
    girth: float
    colors: dict[str, np.ndarray]  # RGB
    slope: float = 0.0  # of the line that the feet walk along, down to the right

    @property
    def duration(self) -> int:
        return len(self.legs) - 1

    def x_at(self, t: float) -> float:
        """The body's x at time ``t``."""
        directions = [_DIRECTION.get(action, 0) for action in self.legs]
        spent = np.clip(t + 0.5 - np.arange(len(self.legs)), 0, 1)  # on each
        return self.start_x + self.speed * self.height * float(spent @ directions)

    def y_at(self, t: float) -> float:
        """The y of the feet at time ``t``."""
        return self.ground_y + self.slope * (self.x_at(t) - self.start_x)


class Blob(NamedTuple):
    """A convex polygon (n, 2) widened by ``radius``; a disc for n = 1."""

    points: np.ndarray
    radius: float
    color: Sequence[float]  # RGB


class Item(NamedTuple):
    """A ball; person ``holders[k]`` has it around second k."""

    holders: tuple[int, ...]
    color: np.ndarray


class Scene(NamedTuple):
    """``guests[k]`` stands beside person 0 around second k; 0 is nobody."""

    persons: tuple[Person, ...]
    props: tuple[Blob, ...]  # may hide people who stand farther back
    seed: int  # of the room
    items: tuple[Item, ...] = ()
    guests: tuple[int, ...] = ()

    @property
    def duration(self) -> int:
        return self.persons[0].duration


def actions_of(scene: Scene, t: float, is_visible: Sequence[bool]) -> list[list[str]]:
    """The names of each person's actions at time ``t``.

    Args:
        is_visible: Of each person; invisible persons do not meet anyone.
    """
    second = round(t)
    action_sets = [
        {person.legs[second], person.arms[second]} for person in scene.persons
    ]
    for i, j in _approaching(scene, second):
        if is_visible[i] and is_visible[j] and _gap(scene, i, j, t) > 0:
            action_sets[i].add('meet')
            action_sets[j].add('meet')
    return [[action for action in ACTIONS if action in names] for names in action_sets]


def is_ambiguous(scene: Scene, second: int) -> bool:
    """True if two people walk past each other around a second."""
    return any(
        _gap(scene, i, j, second - 0.5) > 0 > _gap(scene, i, j, second + 0.5)
        for i, j in _approaching(scene, second)
    )


def _approaching(scene: Scene, second: int) -> list[tuple[int, int]]:
    """Pairs of persons who walk to the right and to the left around a second."""
    legs = [person.legs[second] for person in scene.persons]
    return [
        (i, j)
        for i, j in permutations(range(len(legs)), 2)
        if (legs[i], legs[j]) == ('walk_right', 'walk_left')
    ]


def _gap(scene: Scene, i: int, j: int, t: float) -> float:
    return scene.persons[j].x_at(t) - scene.persons[i].x_at(t)


def random_scene(rng: RandomState, aspect: float) -> Scene:
    """Draw a script for frames that are ``aspect`` times as wide as high."""
    count = rng.choice([1, 2, 3], p=[0.3, 0.5, 0.2])
    persons = [
        random_person(rng, aspect, aspect * (slot + rng.uniform(0.2, 0.8)) / count)
        for slot in rng.permutation(count)
    ]
    if count >= 2 and rng.rand() < 0.6:
        persons[:2] = _let_meet(rng, aspect, persons[:2])
    props = []
    for _ in range(rng.randint(3)):
        foot = rng.uniform((0, 0.72), (aspect, 1.08))
        box = foot + rng.uniform((0.02, 0.1), (0.25, 0.45)) * (SQUARE - [0, 0.5])
        props.append(Blob(box, 0.01, rng.randint(30, 240, 3)))
    return Scene(tuple(persons), tuple(props), seed=rng.randint(2**31))


def random_person(
    rng: RandomState, aspect: float, start_x: float, duration: int = DURATION
) -> Person:
    """Draw a person with random actions, mostly in view."""
    height, speed = rng.uniform(0.6, 0.88), rng.uniform(0.35, 0.5)
    stays_in_view = rng.rand() < 0.85
    legs, x = [], start_x
    while len(legs) <= duration:
        if not legs or rng.rand() > 0.4:
            action = str(rng.choice(ACTIONS[:5], p=[0.15, 0.2, 0.2, 0.23, 0.22]))
        step = _DIRECTION.get(action, 0) * speed * height
        if stays_in_view and not 0.15 < x + step < aspect - 0.15:
            action = 'walk_left' if step > 0 else 'walk_right'
            step = -step
        legs.append(action)
        x += step
    arms = [str(rng.choice(['rest', 'wave']))]
    for _ in range(duration):
        arms.append(str(rng.choice(_NEXT_ARMS[arms[-1]])))
    cloth = rng.choice([25, 130, 235], (3, 3))
    colors = dict(zip(('top', 'bottom', 'shoes'), cloth, strict=True))
    colors['skin'], colors['hair'] = (c[rng.randint(len(c))] for c in (_SKINS, _HAIRS))
    toward = rng.choice([-np.pi / 2, 0, np.pi / 2, np.pi], p=[0.3, 0.3, 0.3, 0.1])
    return Person(
        height=height,
        ground_y=0.36 + 0.76 * height + rng.uniform(-0.03, 0.03),
        start_x=start_x,
        speed=speed,
        yaw=toward + rng.uniform(-0.5, 0.5),
        legs=tuple(legs),
        arms=tuple(arms),
        arm_side=int(rng.choice([-1, 1, 0], p=[0.15, 0.15, 0.7])),
        phase=rng.rand(),
        girth=rng.uniform(1.1, 1.7),
        colors=colors,
    )


def _let_meet(rng: RandomState, aspect: float, pair: Sequence[Person]) -> list[Person]:
    """Make two people approach each other, then stay or part."""
    first = rng.randint(1, 4)
    last = first + rng.randint(1, 3)
    center = rng.uniform(0.4, 0.6) * aspect
    result = []
    for person, side in zip(pair, (-1, 1), strict=True):
        toward, away = ('walk_left', 'walk_right')[::side]
        first_action, last_action = rng.choice(['stand', 'jump', 'squat', away], 2)
        legs = [str(first_action)] * first + [toward] * (last - first)
        legs += [str(last_action)] * (DURATION + 1 - last)
        actor = person._replace(legs=tuple(legs), start_x=0.0)
        meet_x = center + side * rng.uniform(0.16, 0.3) * person.height
        result.append(actor._replace(start_x=meet_x - actor.x_at(last - 0.5)))
    return result
