"""The body of a person at a time: its joints, and the shapes drawn of it.

Lengths are in body heights, x to the right of the picture, y up from the ground.
Walking phases follow the body's position: frames of walking backwards are
frames of walking forwards, in reverse order.
"""

from collections import namedtuple
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from stmixer_mm.projects.toy.script import Blob, Item, Person, Scene

HIP, TORSO, THIGH, ARM, HEAD, BALL = 0.5, 0.31, 0.27, 0.18, 0.085, 0.085
STRIDE = 0.64  # way walked in a full cycle of both legs
# Seconds that changes take before and after their middle.
SWITCH, HAND_OVER = 0.12, 0.25
REST, HELD = np.array([0.25, 0.7]), np.array([2.5, 2.8])  # see _arm_angles
_SIDES = np.array([[-1.0], [1.0]])  # the person's right and left


class Grip(NamedTuple):
    """Hands that are on a ball, or by ``share`` on their way."""

    ball: np.ndarray  # (2,): in the world
    share: float


# Joints: (2,) in the middle, (2, 2) of the person's right and left.
Pose = namedtuple('Pose', 'neck head shoulders elbows hands hips knees feet')


def pose_at(person: Person, t: float, grip: Grip | None = None) -> Pose:
    """The pose of a person at time ``t``, with the body's x as origin."""
    ahead, across = np.sin(person.yaw), np.cos(person.yaw)
    gait = 2 * np.pi * (person.x_at(t) / person.height / STRIDE + person.phase)
    swing = np.sin(gait) * _SIDES
    crouch, lift, walks = _mixed(partial(_leg_motion, person, t), t, person.duration)
    hip_y, lean = HIP + lift - crouch, 0.8 * crouch * ahead
    neck = np.array([lean, hip_y + np.sqrt(TORSO**2 - lean**2)])
    head = neck + np.array([0.3 * lean, 0.035 + HEAD])

    hips = [0, hip_y] + 0.055 * person.girth * across * _SIDES * [1, 0]
    lifted = 0.07 * walks * np.maximum(0, np.cos(gait) * _SIDES)
    feet = np.hstack([hips[:, :1] + swing * STRIDE / 4, 0.02 + 0.9 * lift + lifted])
    half_legs = np.linalg.norm(hips - feet, axis=1, keepdims=True) / 2
    bend = np.sqrt(np.maximum(0, THIGH**2 - half_legs**2))
    knees = (hips + feet) / 2 + bend * (0.94 * ahead + 0.33 * across * _SIDES) * [1, 0]

    shoulders = neck - [0, 0.035] + 0.105 * person.girth * across * _SIDES * [1, 0]
    angles = _mixed(partial(_arm_angles, person, t), t, person.duration)
    angles = np.where(person.arm_side * _SIDES >= 0, angles, REST) + 0.25 * swing
    # Arms stay in the plane of the picture, where they can be seen.
    out = np.sign(ahead if abs(ahead) > 0.7 else across * _SIDES)
    bones = ARM * np.stack([out * np.sin(angles), -np.cos(angles)], axis=2)
    elbows = shoulders + bones[:, 0]
    hands = elbows + bones[:, 1]
    if grip:
        ball = (grip.ball - [person.x_at(t), person.ground_y]) / person.height * [1, -1]
        held = ball + BALL * np.hstack([across * _SIDES, [[-0.6], [-0.6]]])
        half_arms = (held - shoulders) / 2
        drop = np.maximum(0, ARM**2 - (half_arms**2).sum(axis=1, keepdims=True)) ** 0.5
        elbows += grip.share * (shoulders + half_arms - drop * [0, 1] - elbows)
        hands += grip.share * (held - hands)
    return Pose(neck, head, shoulders, elbows, hands, hips, knees, feet)


def grip_of(scene: Scene, number: int, t: float) -> Grip | None:
    """The grip of a person, counted from 0."""
    for item in scene.items:
        holds = np.equal(item.holders, number)
        share = _mixed(holds.astype(float).__getitem__, t, scene.duration, HAND_OVER)
        if share > 0:  # both hold the ball half-way
            return Grip(ball_at(scene, item, t), _smooth(2 * share))
    return None


def ball_at(scene: Scene, item: Item, t: float) -> np.ndarray:
    """The middle (2,) of a ball: before its holder, or between two persons."""

    def held(second: int) -> np.ndarray:
        person = scene.persons[item.holders[second]]
        place = np.add(pose_at(person, t).neck, (0.14 * np.sin(person.yaw), -0.2))
        return [person.x_at(t), person.ground_y] + person.height * place * [1, -1]

    return _mixed(held, t, scene.duration, HAND_OVER)


def _leg_motion(person: Person, t: float, second: int) -> np.ndarray:
    """Depth of the sunken hips, height of the body above ground, walks (0 or 1)."""
    action = person.legs[second]
    if action == 'squat':
        return np.array([0.11 * (1 - np.cos(2 * np.pi * (t + person.phase))), 0, 0])
    if action == 'jump':
        cycle = (1.6 * t + person.phase) % 1
        if cycle < 0.4:
            return np.array([0.09 * np.sin(np.pi * cycle / 0.4), 0, 0])
        flight = (cycle - 0.4) / 0.6
        return np.array([0, 0.24 * 4 * flight * (1 - flight), 0])
    return np.array([0, 0, action.startswith('walk')])


def _arm_angles(person: Person, t: float, second: int) -> np.ndarray:
    """Angles (2,) of upper arm and forearm, 0 hanging, pi straight up."""
    beat = np.sin(2 * np.pi * (1.8 * t + person.phase))
    rise = _smooth((t - second + 0.42) / 0.84)
    return {
        'rest': REST,
        'hold': HELD,
        'wave': HELD + beat * np.array([0.25, 0.8]),
        'raise_arm': REST + rise * (HELD - REST),
        'lower': HELD + rise * (REST - HELD),
    }[person.arms[second]]


def _mixed(
    motion: Callable[[int], np.ndarray], t: float, duration: int, switch: float = SWITCH
) -> np.ndarray:
    """A motion, which depends on the second, at ``t``: a mixture while it changes."""
    second = int(np.clip(t, 0, duration - 1))
    share = _smooth((t - second - 0.5 + switch) / (2 * switch))
    old, new = motion(second), motion(second + 1)
    return (1 - share) * old + share * new


def _smooth(share: float) -> float:
    share = min(1.0, max(0.0, share))
    return share * share * (3 - 2 * share)


def person_blobs(person: Person, t: float, grip: Grip | None = None) -> list[Blob]:
    """A person at time ``t`` as blobs in the world, the farthest first."""
    pose, girth = pose_at(person, t, grip), person.girth
    ahead, across = np.sin(person.yaw), np.cos(person.yaw)
    origin = np.array([person.x_at(t), person.y_at(t)])
    blobs = []

    def add(color: str, radius: float, *joints: np.ndarray, shade: float = 1) -> None:
        points = origin + person.height * np.array(joints) * [1, -1]
        blobs.append(Blob(points, person.height * radius, shade * person.colors[color]))

    far = int(ahead > 0)
    for side, shade in ((far, 0.75), (1 - far, 0.95)):
        knee, foot = pose.knees[side], pose.feet[side]
        add('bottom', 0.038 * girth, pose.hips[side], knee, shade=shade)
        add('bottom', 0.03 * girth, knee, foot, shade=shade)
        add('shoes', 0.024, foot, foot + np.array([0.05 * ahead, 0]), shade=shade)
    add('bottom', 0.042 * girth, *pose.hips)
    waist = 0.15 * pose.neck + 0.85 * pose.hips[::-1]
    add('top', 0.042 * girth, *pose.shoulders, *waist)
    add('skin', 0.03, pose.neck, pose.head, shade=0.9)
    add('hair', HEAD, pose.head + HEAD * np.array([-0.2 * ahead, 0.1]))
    if across > -0.2:
        face = pose.head + HEAD * np.array([0.2 * ahead, -0.14])
        add('skin', 0.84 * HEAD, face)
        for side in (-0.36, 0.36):
            eye = HEAD * np.array([0.45 * ahead + side * across, 0.12])
            add('skin', 0.12 * HEAD, face + eye, shade=0.1)
    # Both arms in front of everything, so that what they do shows from all sides.
    for side, shade in ((far, 0.7), (1 - far, 0.85)):
        elbow, hand = pose.elbows[side], pose.hands[side]
        add('top', 0.036, pose.shoulders[side], elbow, shade=shade)
        add('top', 0.03, elbow, hand, shade=shade)
        add('skin', 0.036, hand, shade=shade)
    return blobs
