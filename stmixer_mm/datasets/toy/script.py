"""Who does what when: the script of a toy video, without a single pixel.

Lengths are in frame heights (x to the right from the view's left edge, y down from its
top edge), times in seconds. What a person does changes only half-way between two whole
seconds, so that around a keyframe (a whole second) nothing changes for about a second.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState

ACTIONS = (
    *('stand', 'walk_left', 'walk_right', 'jump', 'squat'),  # everybody does one
    *('wave', 'raise_arm', 'meet'),  # beside it
)
DURATION = 6  # seconds of a video
KEYFRAMES = tuple(range(1, DURATION))  # seconds that are annotated

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
    """One actor: ``legs[k]`` and ``arms[k]`` are done around second k.

    ``yaw`` is where the body faces (0 the viewer, pi / 2 the right), which says nothing
    about where it walks; ``arm_side`` is the arm that acts (1 the person's left, 0 both).
    """

    height: float
    ground_y: float
    start_x: float
    speed: float  # body heights a second
    yaw: float
    legs: tuple[str, ...]
    arms: tuple[str, ...]
    arm_side: int
    tempo: float  # of repeated movements, about 1
    phase: float  # of repeated movements, 0 to 1
    rest_angles: tuple[float, float]  # of the upper and fore arms at rest, radians
    held_angle: float  # of a raised arm, radians from hanging down
    girth: float
    head: float  # radius in body heights
    colors: dict[str, np.ndarray]  # RGB

    def x_at(self, t: float) -> float:
        """The body's x at time ``t``."""
        knots = np.concatenate([[0.0], np.arange(DURATION) + 0.5, [DURATION]])
        velocities = [_DIRECTION.get(action, 0) for action in self.legs]
        steps = np.diff(knots) * velocities * self.speed * self.height
        return float(np.interp(t, knots, self.start_x + np.append(0, np.cumsum(steps))))


class Camera(NamedTuple):
    """Slow sines for pan and zoom, faster ones for shake."""

    rate: float  # Hz, of the slow sines
    phase: float
    pan: tuple[float, float]  # amplitudes in x and y
    zoom: tuple[float, float]  # mean and amplitude
    shake: float

    def view(self, t: float, size: tuple[int, int]) -> tuple[float, np.ndarray]:
        """Scale and offset from the world to pixels of a (width, height) image."""
        slow = 2 * np.pi * (self.rate * t + self.phase)
        fast = 2 * np.pi * (2.3 * t + self.phase)
        pan = self.pan * np.array([np.sin(slow), np.cos(slow)])
        shake = self.shake * np.array([np.sin(fast), np.cos(1.7 * fast)])
        scale = size[1] * (self.zoom[0] + self.zoom[1] * np.sin(0.8 * slow + 1))
        center = np.array(size) / 2
        return scale, center - scale * (center / size[1] + pan + shake)


class Prop(NamedTuple):
    """A board, a post or a crate, which may hide people behind it."""

    x: float
    ground_y: float
    width: float
    height: float
    color: np.ndarray


class Scene(NamedTuple):
    persons: tuple[Person, ...]
    props: tuple[Prop, ...]
    camera: Camera
    seed: int  # of the background


def actions_of(scene: Scene, second: int, seen: Sequence[bool]) -> list | None:
    """The names of each person's actions around a second, in the order of ``ACTIONS``.

    None if two people walk past each other: whether they meet is moot then.

    Args:
        seen: Who is visible; nobody meets an invisible person.
    """
    meeting = set()
    for (i, one), (j, other) in product(enumerate(scene.persons), repeat=2):
        if (one.legs[second], other.legs[second]) != ('walk_right', 'walk_left'):
            continue
        times = second - 0.5, second, second + 0.5
        before, now, after = (other.x_at(t) - one.x_at(t) for t in times)
        if before > 0 > after:
            return None
        if now > 0 and seen[i] and seen[j]:
            meeting |= {i, j}
    done = [{person.legs[second], person.arms[second]} for person in scene.persons]
    for i in meeting:
        done[i].add('meet')
    return [[action for action in ACTIONS if action in one] for one in done]


def random_scene(rng: RandomState, aspect: float) -> Scene:
    """Draw a script for frames that are ``aspect`` times as wide as high."""
    count = rng.choice([1, 2, 3, 4], p=[0.3, 0.5, 0.15, 0.05])
    persons = [
        _random_person(rng, aspect, aspect * (slot + rng.uniform(0.2, 0.8)) / count)
        for slot in rng.permutation(count)
    ]
    if count >= 2 and rng.rand() < 0.6:
        persons[:2] = _let_meet(rng, aspect, persons[:2])
    low = (0, 0.72, 0.02, 0.1, 30, 30, 30)
    high = (aspect, 1.08, 0.25, 0.45, 240, 240, 240)
    props = (rng.uniform(low, high) for _ in range(rng.randint(0, 3)))
    moves, shakes, zooms = rng.rand(3) < [0.5, 0.3, 0.3]
    camera = Camera(
        rate=rng.uniform(0.15, 0.35),
        phase=rng.rand(),
        pan=(moves * rng.uniform(0, 0.08), moves * rng.uniform(0, 0.02)),
        zoom=(rng.uniform(0.95, 1.1), zooms * rng.uniform(0, 0.08)),
        shake=shakes * rng.uniform(0.002, 0.005),
    )
    props = tuple(Prop(*prop[:4], color=prop[4:]) for prop in props)
    return Scene(tuple(persons), props, camera, seed=rng.randint(2**31))


def _random_person(rng: RandomState, aspect: float, start_x: float) -> Person:
    height, speed = rng.uniform(0.6, 0.88), rng.uniform(0.35, 0.5)
    stays = rng.rand() < 0.85  # in view
    legs, x = [], start_x
    for second in range(DURATION + 1):
        if second == 0 or rng.rand() > 0.4:
            legs.append(str(rng.choice(ACTIONS[:5], p=[0.15, 0.2, 0.2, 0.23, 0.22])))
        else:
            legs.append(legs[-1])
        step = _DIRECTION.get(legs[-1], 0) * speed * height
        if stays and not 0.15 < x + step < aspect - 0.15:
            legs[-1] = 'walk_left' if step > 0 else 'walk_right'
            step = -step
        x += step * (0.5 if second == 0 else 1)
    arms = [str(rng.choice(['rest', 'wave']))]
    for _ in range(DURATION):
        arms.append(str(rng.choice(_NEXT_ARMS[arms[-1]])))
    colors = {name: rng.randint(30, 240, 3) for name in ('top', 'bottom', 'shoes')}
    colors['skin'], colors['hair'] = (c[rng.randint(len(c))] for c in (_SKINS, _HAIRS))
    colors['forearm'] = colors[rng.choice(['top', 'skin'])]
    colors['shin'] = colors[rng.choice(['bottom', 'skin'])]
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
        tempo=rng.uniform(0.85, 1.15),
        phase=rng.rand(),
        rest_angles=(rng.uniform(0.1, 0.4), rng.uniform(0.05, 0.9)),
        held_angle=rng.uniform(2.5, 2.9),
        girth=rng.uniform(1.1, 1.7),
        head=rng.uniform(0.075, 0.095),
        colors=colors,
    )


def _let_meet(rng: RandomState, aspect: float, pair: Sequence[Person]) -> list[Person]:
    """Make two people approach each other, then stand, part or do as they like."""
    first = rng.randint(1, 4)
    last = min(first + rng.randint(1, 3), DURATION)
    after = rng.choice(['stand', 'part', 'own'])
    center = rng.uniform(0.4, 0.6) * aspect
    result = []
    for person, side in zip(pair, (-1, 1), strict=True):
        toward, away = ('walk_left', 'walk_right')[::side]
        still = str(rng.choice(['stand', 'jump', 'squat']))
        legs = [still if action in _DIRECTION else action for action in person.legs]
        legs[first:last] = [toward] * (last - first)
        if after == 'part':
            legs[last] = away
        elif after == 'stand':
            legs[last:] = ['stand'] * len(legs[last:])
        actor = person._replace(legs=tuple(legs), start_x=0.0)
        meet_x = center + side * rng.uniform(0.16, 0.3) * person.height
        result.append(actor._replace(start_x=meet_x - actor.x_at(last - 0.5)))
    return result
