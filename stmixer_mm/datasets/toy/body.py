"""The body of a person at a time: its joints, and the shapes drawn of it.

Lengths are in body heights, x to the right of the picture, y up from the ground, z
towards the viewer. Walking phases follow the body's position: a frame of somebody who
walks backwards is a frame of somebody who walks forwards, only their order differs.
"""

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from stmixer_mm.datasets.toy.script import DURATION, Person

HIP, TORSO, THIGH, ARM = 0.5, 0.31, 0.27, 0.18
STRIDE = 0.64  # way walked in a full cycle of both legs
SWITCH = 0.12  # seconds that a change of action takes, before and after its middle
_SIDES = np.array([[-1.0], [1.0]])  # the person's right and left


class Blob(NamedTuple):
    """A convex polygon (n, 2) widened by ``radius``; a disc for n = 1."""

    points: np.ndarray
    radius: float
    color: Sequence[float]  # RGB


# Joints: (3,) in the middle, (2, 3) of the person's right and left.
Pose = namedtuple('Pose', 'neck head shoulders elbows hands hips knees feet')


def pose_at(person: Person, t: float) -> Pose:
    """The pose of a person at time ``t``, with the body's x as origin."""
    forward = np.array([np.sin(person.yaw), 0, np.cos(person.yaw)])
    lefts = _SIDES * [np.cos(person.yaw), 0, -np.sin(person.yaw)]
    gait = 2 * np.pi * (person.x_at(t) / person.height / STRIDE + person.phase)
    crouch, lift, walks = _mixed(person.legs, t, partial(_leg_motion, person, t))
    pelvis_y = HIP + lift - crouch - 0.012 * (1 - np.cos(2 * gait))
    lean = 0.8 * crouch * forward
    spine = [0, 1, 0] + lean / TORSO
    neck = [0, pelvis_y, 0] + TORSO * spine / np.linalg.norm(spine)
    head = neck + [0, 0.035 + person.head, 0] + 0.3 * lean

    hips = [0, pelvis_y, 0] + 0.055 * person.girth * lefts
    feet = hips * [1, 0, 1] + 0.012 * lefts + [0, 0.02 + 0.9 * lift, 0]
    feet[:, 0] += STRIDE / 4 * np.sin(gait) * _SIDES[:, 0]
    feet[:, 1] += 0.07 * walks * np.maximum(0, np.cos(gait) * _SIDES[:, 0])
    knees = _knees(hips, feet, forward + 0.35 * lefts)

    shoulders = neck + 0.105 * person.girth * lefts - [0, 0.035, 0]
    angles = _arm_angles(person, t, np.sin(gait))
    # A raised arm stays in the plane of the picture, where it can be seen.
    sideways = abs(forward[0]) > 0.7
    out = np.sign(forward[0]) if sideways else np.sign(lefts[:, :1])
    bones = ARM * np.stack([out * np.sin(angles), -np.cos(angles), 0 * angles], axis=2)
    elbows = shoulders + bones[:, 0]
    hands = elbows + bones[:, 1]
    return Pose(neck, head, shoulders, elbows, hands, hips, knees, feet)


def _leg_motion(person: Person, t: float, action: str, _: int) -> np.ndarray:
    """How deep the hips are sunk, how high the body is up, whether it walks (0 or 1)."""
    if action == 'squat':
        turn = 2 * np.pi * (person.tempo * t + person.phase)
        return np.array([0.11 * (1 - np.cos(turn)), 0, 0])
    if action == 'jump':
        cycle = (1.6 * person.tempo * t + person.phase) % 1
        if cycle < 0.4:
            return np.array([0.09 * np.sin(np.pi * cycle / 0.4), 0, 0])
        flight = (cycle - 0.4) / 0.6
        return np.array([0, 0.24 * 4 * flight * (1 - flight), 0])
    return np.array([0, 0, action.startswith('walk')])


def _arm_angles(person: Person, t: float, swing: float) -> np.ndarray:
    """Angles (2, 2) of upper arm and forearm of each side, 0 hanging, pi straight up."""
    upper, bend = person.rest_angles
    rest = np.array([upper, upper + bend]) + 0.25 * swing * _SIDES
    held = np.array([person.held_angle, person.held_angle + 0.3])

    def angles(action: str, second: int) -> np.ndarray:
        beat = np.sin(2 * np.pi * (1.8 * person.tempo * t + person.phase))
        rise = _smooth((t - second + 0.42) / 0.84)
        return {
            'rest': rest,
            'hold': held,
            'wave': held + beat * np.array([0.25, 0.8]),
            'raise_arm': rest + rise * (held - rest),
            'lower': held + rise * (rest - held),
        }[action]

    acts = person.arm_side * _SIDES >= 0
    return np.where(acts, _mixed(person.arms, t, angles), rest)


def _mixed(
    actions: Sequence[str], t: float, value: Callable[[str, int], np.ndarray]
) -> np.ndarray:
    """``value(action, second)`` at ``t``, mixed while the action changes."""
    before = int(np.clip(t, 0, DURATION - 1))
    share = _smooth((t - before - 0.5 + SWITCH) / (2 * SWITCH))
    old, new = (value(actions[second], second) for second in (before, before + 1))
    return (1 - share) * old + share * new


def _smooth(share: float) -> float:
    share = min(1.0, max(0.0, share))
    return share * share * (3 - 2 * share)


def _knees(hips: np.ndarray, feet: np.ndarray, poles: np.ndarray) -> np.ndarray:
    """The joints of bones of length ``THIGH``, bent towards ``poles``; all (2, 3)."""
    legs = feet - hips
    squares = (legs**2).sum(1, keepdims=True)
    poles = poles - legs * (poles * legs).sum(1, keepdims=True) / squares
    poles /= np.linalg.norm(poles, axis=1, keepdims=True)
    return hips + legs / 2 + poles * np.sqrt(np.maximum(0, THIGH**2 - squares / 4))


def person_blobs(person: Person, t: float) -> list[Blob]:
    """A person at time ``t`` as blobs in the world, the farthest first."""
    pose, girth, head = pose_at(person, t), person.girth, person.head
    origin = np.array([person.x_at(t), person.ground_y])
    blobs = []

    def add(color: str, radius: float, *joints: np.ndarray, shade: float = 1) -> None:
        points = np.array([joint[:2] for joint in joints])
        points = points[cv2.convexHull(np.float32(points), returnPoints=False)[:, 0]]
        points = origin + person.height * points * [1, -1]
        blobs.append(Blob(points, person.height * radius, shade * person.colors[color]))

    def leg(side: int, shade: float) -> None:
        hip, knee, foot = pose.hips[side], pose.knees[side], pose.feet[side]
        add('bottom', 0.038 * girth, hip, knee, shade=shade)
        add('shin', 0.03 * girth, knee, foot, shade=shade)
        add('shoes', 0.024, foot, foot + np.array([0.05 * ahead, 0, 0]), shade=shade)

    def arm(side: int, shade: float) -> None:
        elbow, hand = pose.elbows[side], pose.hands[side]
        add('top', 0.036, pose.shoulders[side], elbow, shade=shade)
        add('forearm', 0.03, elbow, hand, shade=shade)
        add('skin', 0.036, hand, shade=shade)

    ahead, toward = np.sin(person.yaw), np.cos(person.yaw)
    far, near = np.argsort(pose.shoulders[:, 2])
    leg(far, 0.75)
    arm(far, 0.75)
    leg(near, 0.95)
    add('bottom', 0.042 * girth, *pose.hips)
    add('top', 0.042 * girth, *pose.shoulders, *(0.15 * pose.neck + 0.85 * pose.hips))
    add('skin', 0.03, pose.neck, pose.head, shade=0.9)
    add('hair', head, pose.head + head * np.array([-0.2 * ahead, 0.1, 0]))
    if toward > -0.2:
        face = pose.head + head * np.array([0.2 * ahead, -0.14, 0])
        add('skin', 0.84 * head, face)
        for side in (-0.36, 0.36):
            eye = face + head * np.array([0.45 * ahead + side * toward, 0.12, 0])
            add('skin', 0.12 * head, eye, shade=0.1)
    arm(near, 0.85)
    return blobs
