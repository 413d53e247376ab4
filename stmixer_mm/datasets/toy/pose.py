"""Where the joints of a person are at a time.

Lengths are in body heights, x to the right of the picture, y up from the ground, z
towards the viewer. Walking phases follow the body's position: a frame of somebody who
walks backwards is a frame of somebody who walks forwards, only their order differs.
"""

from typing import NamedTuple

import numpy as np

from stmixer_mm.datasets.toy.script import DURATION

HIP, TORSO, THIGH, ARM = 0.5, 0.31, 0.27, 0.18
STRIDE = 0.64  # way walked in a full cycle of both legs
SWITCH = 0.12  # seconds that a change of action takes, before and after its middle


class Pose(NamedTuple):
    """Joints (3,) of a body; pairs are the person's right and left, in this order."""

    pelvis: np.ndarray
    neck: np.ndarray
    head: np.ndarray
    shoulders: tuple
    elbows: tuple
    hands: tuple
    hips: tuple
    knees: tuple
    feet: tuple
    forward: np.ndarray  # unit vector that the body faces


def pose_at(person, t):
    """The pose of ``person`` at time ``t``, with the body's x as origin."""
    forward = np.array([np.sin(person.yaw), 0, np.cos(person.yaw)])
    left = np.array([np.cos(person.yaw), 0, -np.sin(person.yaw)])
    crouch, lift, moving = _mixed(
        person.legs, t, lambda action, _: _leg_motion(person, action, t)
    )
    gait = 2 * np.pi * (person.x_at(t) / person.height / STRIDE + person.phase)

    pelvis = np.array([0, HIP + lift - crouch - 0.012 * (1 - np.cos(2 * gait)), 0])
    lean = 0.8 * crouch * forward
    neck = pelvis + _scaled([0, 1, 0] + lean / TORSO, TORSO)
    head = neck + [0, 0.035 + person.look.head, 0] + 0.3 * lean
    feet, knees, hips = [], [], []
    for side in (-1, 1):
        hip = pelvis + side * 0.055 * person.look.girth * left
        swing, rise = np.sin(gait), np.cos(gait)
        foot = hip * [1, 0, 1] + side * left * 0.012
        foot += [side * swing * STRIDE / 4, 0.02 + 0.9 * lift, 0]
        foot[1] += moving * 0.07 * max(0.0, side * rise)
        feet.append(foot)
        hips.append(hip)
        knees.append(_knee(hip, foot, forward + 0.35 * side * left))

    shoulders, elbows, hands = [], [], []
    for side in (-1, 1):
        shoulder = neck + side * 0.105 * person.look.girth * left - [0, 0.035, 0]
        upper, fore = _arm_angles(person, side, t, np.sin(gait))
        # A raised arm stays in the plane of the picture, where it can be seen.
        out = np.sign(forward[0]) if abs(forward[0]) > 0.7 else side * np.sign(left[0])
        elbow = shoulder + ARM * np.array([out * np.sin(upper), -np.cos(upper), 0])
        hand = elbow + ARM * np.array([out * np.sin(fore), -np.cos(fore), 0])
        shoulders.append(shoulder)
        elbows.append(elbow)
        hands.append(hand)
    pairs = (shoulders, elbows, hands, hips, knees, feet)
    return Pose(pelvis, neck, head, *map(tuple, pairs), forward)


def _leg_motion(person, action, t):
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
    return np.array([0, 0, float(action.startswith('walk'))])


def _arm_angles(person, side, t, swing):
    """Angles of upper arm and forearm, 0 hanging, pi straight up."""
    upper, bend = person.rest_angles
    rest = np.array([upper, upper + bend]) + 0.25 * side * swing
    if person.arm_side not in (0, side):
        return rest
    held = np.array([person.held_angle, person.held_angle + 0.3])

    def angles(action, second):
        beat = np.sin(2 * np.pi * (1.8 * person.tempo * t + person.phase))
        rise = _smooth((t - second + 0.42) / 0.84)
        return {
            'rest': rest,
            'hold': held,
            'wave': held + beat * np.array([0.25, 0.8]),
            'raise_arm': rest + rise * (held - rest),
            'lower': held + rise * (rest - held),
        }[action]

    return _mixed(person.arms, t, angles)


def _mixed(actions, t, value):
    """``value(action, second)`` at ``t``, mixed while the action changes."""
    before = int(np.clip(np.floor(t), 0, DURATION - 1))
    after = before + 1
    share = _smooth((t - before - 0.5 + SWITCH) / (2 * SWITCH))
    if share == 0 or share == 1:
        second = after if share else before
        return value(actions[second], second)
    old, new = value(actions[before], before), value(actions[after], after)
    return (1 - share) * old + share * new


def _knee(hip, foot, pole):
    """The joint of two bones of length ``THIGH``, bent towards ``pole``."""
    leg = foot - hip
    length = np.linalg.norm(leg)
    bend = np.sqrt(max(0.0, THIGH**2 - length**2 / 4))
    pole = pole - leg * (pole @ leg) / length**2
    return hip + leg / 2 + _scaled(pole, bend)


def _scaled(vector, length):
    return vector * (length / np.linalg.norm(vector))


def _smooth(share):
    share = min(1.0, max(0.0, share))
    return share * share * (3 - 2 * share)
