"""Who does what when: the script of a toy video, without a single pixel.

Lengths are in frame heights (x to the right from the view's left edge, y down from its
top edge), times in seconds. What a person does changes only half-way between two whole
seconds, so that around a keyframe (a whole second) nothing changes for about a second.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

ACTIONS = (
    'stand',
    'walk_left',
    'walk_right',
    'jump',
    'squat',
    'wave',
    'raise_arm',
    'meet',
)
DURATION = 6  # seconds of a video
KEYFRAMES = tuple(range(1, DURATION))  # seconds that are annotated
# A person whose drawn area is visible to at least CLEAR of it is annotated, one below
# HIDDEN is not; scripts with anything in between at a keyframe are thrown away.
CLEAR, HIDDEN = 0.5, 0.1

_DIRECTION = {'walk_left': -1, 'walk_right': 1}
_NEXT_ARM = {
    'rest': ('rest', 'raise_arm', 'raise_arm', 'wave'),
    'raise_arm': ('wave', 'wave', 'hold', 'lower'),
    'hold': ('lower', 'wave'),
    'wave': ('wave', 'rest', 'rest', 'lower'),
    'lower': ('rest', 'rest', 'raise_arm'),
}


@dataclass(frozen=True)
class Look:
    """Clothes and build; colours are RGB, lengths in body heights."""

    skin: tuple
    hair: tuple
    top: tuple
    bottom: tuple
    shoes: tuple
    hat: tuple
    hair_style: str  # short, long or bald
    bottom_style: str  # trousers, shorts or skirt
    hat_style: str  # none, cap or brim
    long_sleeves: bool
    girth: float
    head: float


@dataclass(frozen=True)
class Person:
    """One actor: ``legs[k]`` and ``arms[k]`` are done around second k.

    ``yaw`` is where the body faces (0 the viewer, pi / 2 the right), which says nothing
    about where it walks; ``arm_side`` is the arm that acts (1 the person's left, 0 both).
    """

    height: float
    ground_y: float
    start_x: float
    speed: float  # body heights a second
    yaw: float
    legs: tuple
    arms: tuple
    arm_side: int
    tempo: float  # of repeated movements, about 1
    phase: float  # of repeated movements, 0 to 1
    rest_angles: tuple  # of the upper and fore arms at rest, radians
    held_angle: float  # of a raised arm, radians from hanging down
    look: Look

    def x_at(self, t):
        """The body's x at time ``t``."""
        knots = np.concatenate([[0.0], np.arange(DURATION) + 0.5, [DURATION]])
        velocities = [_DIRECTION.get(action, 0) for action in self.legs]
        steps = np.diff(knots) * velocities * self.speed * self.height
        return float(np.interp(t, knots, self.start_x + np.append(0, np.cumsum(steps))))


@dataclass(frozen=True)
class Camera:
    """Slow sines for pan, zoom and roll, faster ones for shake."""

    drift: float
    pan: tuple  # amplitudes in x and y
    pan_rate: float  # Hz
    zoom: tuple  # mean and amplitude
    roll: float  # radians
    shake: float
    phase: float

    def matrix(self, t, size):
        """The affine map (2, 3) from the world to pixels of a (width, height) image.

        It is a rotation with a scaling: lengths scale alike in all directions.
        """
        width, height = size
        slow = 2 * np.pi * (self.pan_rate * t + self.phase)
        fast = 2 * np.pi * (2.3 * t + self.phase)
        center = np.array([width / height / 2, 0.5])
        drift = np.array([self.drift * (t - DURATION / 2), 0])
        pan = self.pan * np.array([np.sin(slow), np.cos(slow)])
        shake = self.shake * np.array([np.sin(fast), np.cos(1.7 * fast)])
        look_at = center + drift + pan + shake
        scale = height * (self.zoom[0] + self.zoom[1] * np.sin(0.8 * slow + 1))
        angle = self.roll * np.sin(slow + 2)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]])
        return np.column_stack([linear, height * center - linear @ look_at])


@dataclass(frozen=True)
class Prop:
    """A thing that stands on the floor and may hide people behind it."""

    kind: str
    x: float
    ground_y: float
    size: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """A whole video; ``seed`` decides the look of the background."""

    persons: tuple
    props: tuple
    camera: Camera
    seed: int


def actions_of(scene, second, seen):
    """The actions of each person around a second, in the order of ``ACTIONS``.

    Args:
        seen (Sequence[bool]): who is visible; nobody meets an invisible person.
    """
    meeting = set()
    for i, j in _facing_walks(scene, second):
        if seen[i] and seen[j] and _gap(scene, i, j, second) > 0:
            meeting |= {i, j}
    result = []
    for i, person in enumerate(scene.persons):
        done = {person.legs[second], person.arms[second]}
        done |= {'meet'} if i in meeting else set()
        result.append([action for action in ACTIONS if action in done])
    return result


def has_passing(scene, second):
    """Whether two people walk past each other around a second: 'meet' is moot then."""
    return any(
        _gap(scene, i, j, second - 0.5) > 0 > _gap(scene, i, j, second + 0.5)
        for i, j in _facing_walks(scene, second)
    )


def _facing_walks(scene, second):
    """Pairs of people of whom the first walks right and the second left."""
    going = [_DIRECTION.get(person.legs[second]) for person in scene.persons]
    rightwards = [i for i, direction in enumerate(going) if direction == 1]
    leftwards = [j for j, direction in enumerate(going) if direction == -1]
    return itertools.product(rightwards, leftwards)


def _gap(scene, i, j, t):
    """How far person j is to the right of person i."""
    return scene.persons[j].x_at(t) - scene.persons[i].x_at(t)


def random_scene(rng, aspect):
    """Draws a script.

    Args:
        rng (np.random.RandomState): the only source of chance.
        aspect (float): width of the frame divided by its height.
    """
    count = rng.choice([1, 2, 3, 4], p=[0.3, 0.5, 0.15, 0.05])
    slots = rng.permutation(count)
    persons = [
        _random_person(rng, aspect, aspect * (slot + rng.uniform(0.2, 0.8)) / count)
        for slot in slots
    ]
    if count >= 2 and rng.rand() < 0.6:
        persons[:2] = _let_meet(rng, aspect, persons[:2])
    props = tuple(
        Prop(
            kind=str(rng.choice(['table', 'plant', 'post', 'bush', 'crate', 'chair'])),
            x=rng.uniform(0, aspect),
            ground_y=rng.uniform(0.72, 1.08),
            size=rng.uniform(0.16, 0.3),
            seed=rng.randint(2**31),
        )
        for _ in range(rng.randint(0, 3))
    )
    return Scene(tuple(persons), props, _random_camera(rng), rng.randint(2**31))


def _random_camera(rng):
    moves, shakes, zooms = rng.rand(3) < [0.5, 0.3, 0.3]
    return Camera(
        drift=moves * rng.uniform(-0.03, 0.03),
        pan=(moves * rng.uniform(0, 0.04), moves * rng.uniform(0, 0.02)),
        pan_rate=rng.uniform(0.15, 0.35),
        zoom=(rng.uniform(0.95, 1.1), zooms * rng.uniform(0, 0.08)),
        roll=moves * rng.uniform(0, 0.04),
        shake=shakes * rng.uniform(0.002, 0.005),
        phase=rng.rand(),
    )


def _random_person(rng, aspect, start_x):
    height = rng.uniform(0.6, 0.88)
    speed = rng.uniform(0.35, 0.5)
    stays = rng.rand() < 0.85
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
        arms.append(str(rng.choice(_NEXT_ARM[arms[-1]])))
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
        look=_random_look(rng),
    )


def _let_meet(rng, aspect, pair):
    """Makes two people approach each other, then stay or part."""
    first = rng.randint(1, 4)
    last = min(first + rng.randint(1, 3), DURATION)
    after = str(rng.choice(['stand', 'part', 'own']))
    height = np.mean([person.height for person in pair])
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
        actor = replace(
            person,
            height=height * rng.uniform(0.9, 1.1),
            ground_y=0.36 + 0.76 * height + rng.uniform(-0.03, 0.03),
            legs=tuple(legs),
            start_x=0.0,
        )
        meet_x = center + side * rng.uniform(0.16, 0.3) * height
        result.append(replace(actor, start_x=meet_x - actor.x_at(last - 0.5)))
    return result


_SKIN = (
    (255, 220, 190),
    (240, 195, 160),
    (210, 160, 120),
    (165, 115, 80),
    (105, 70, 50),
)
_HAIR = ((30, 25, 20), (80, 50, 25), (150, 100, 45), (215, 180, 95), (150, 150, 150))
_CLOTH = (
    (200, 40, 45), (40, 80, 190), (35, 140, 70), (235, 190, 50), (120, 60, 150),
    (240, 240, 235), (45, 45, 55), (235, 120, 40), (90, 190, 200), (225, 120, 170),
    (110, 80, 55), (90, 105, 130),
)  # fmt: skip


def _random_look(rng):
    def pick(colours):
        shade = rng.uniform(0.85, 1.1)
        chosen = colours[rng.randint(len(colours))]
        return tuple(int(min(255, channel * shade)) for channel in chosen)

    return Look(
        skin=pick(_SKIN),
        hair=pick(_HAIR),
        top=pick(_CLOTH),
        bottom=pick(_CLOTH),
        shoes=pick(((30, 30, 35), (230, 230, 230), (120, 70, 40))),
        hat=pick(_CLOTH),
        hair_style=str(rng.choice(['short', 'long', 'bald'], p=[0.5, 0.4, 0.1])),
        bottom_style=str(rng.choice(['trousers', 'shorts', 'skirt'])),
        hat_style=str(rng.choice(['none', 'cap', 'brim'], p=[0.6, 0.25, 0.15])),
        long_sleeves=bool(rng.rand() < 0.5),
        girth=rng.uniform(1.1, 1.7),
        head=rng.uniform(0.075, 0.095),
    )
