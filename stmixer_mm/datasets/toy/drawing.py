"""Drawing of toy scenes: everything is made of convex polygons with rounded corners."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from stmixer_mm.datasets.toy.pose import pose_at

MARGIN = 0.45  # width of the world around the view that is painted, in frame heights
SUPERSAMPLING = 2
_SHIFT = 4  # fractional bits of the coordinates handed to OpenCV


class Blob(NamedTuple):
    """A convex polygon (n, 2) widened by ``radius``; a disc for n = 1."""

    points: np.ndarray
    radius: float
    color: tuple


def paint(image, blobs, matrix):
    """Paints blobs, the first one farthest away, through an affine map onto an image."""
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    for points, radius, color in blobs:
        # The last term: OpenCV's integer coordinates are the centres of pixels.
        points = points @ matrix[:, :2].T + matrix[:, 2] - 0.5
        points = np.rint(points * 2**_SHIFT).astype(np.int32)
        width = max(1, round(2 * radius * scale))
        if len(points) == 1:
            fixed_radius = round(radius * scale * 2**_SHIFT)
            cv2.circle(
                image, points[0].tolist(), fixed_radius, color, -1, cv2.LINE_AA, _SHIFT
            )
            continue
        if len(points) > 2:
            cv2.fillConvexPoly(image, points, color, cv2.LINE_AA, _SHIFT)
        if radius > 0:
            cv2.polylines(
                image, [points], len(points) > 2, color, width, cv2.LINE_AA, _SHIFT
            )


def extent(blobs, matrix):
    """The box (4,) around blobs after the affine map, in pixels, xyxy."""
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    points = np.concatenate([blob.points for blob in blobs])
    radii = np.concatenate([[blob.radius] * len(blob.points) for blob in blobs])
    points = points @ matrix[:, :2].T + matrix[:, 2]
    radii = scale * radii[:, None]
    return np.concatenate([(points - radii).min(0), (points + radii).max(0)])


def person_blobs(person, t):
    """A person at time ``t`` as blobs in the world."""
    pose, look = pose_at(person, t), person.look
    origin = np.array([person.x_at(t), person.ground_y])
    blobs = []

    def add(joints, radius, color, shade=1.0):
        points = np.array([joint[:2] for joint in joints]) * [1, -1]
        color = tuple(int(min(255, shade * channel)) for channel in color)
        blobs.append(
            Blob(origin + person.height * points, person.height * radius, color)
        )

    def limb(start, middle, end, radii, colors, shade):
        add((start, middle), radii[0], colors[0], shade)
        add((middle, end), radii[1], colors[1], shade)

    def leg(side, shade):
        trousers = look.bottom_style == 'trousers'
        thigh = look.skin if look.bottom_style == 'skirt' else look.bottom
        shin = look.bottom if trousers else look.skin
        foot = pose.feet[side]
        limb(pose.hips[side], pose.knees[side], foot, radii_leg, (thigh, shin), shade)
        toe = foot + 0.05 * pose.forward * [1, 0, 0] + [0, -0.01, 0]
        add((foot, toe), 0.024, look.shoes, shade)

    def arm(side, shade):
        sleeve = look.top if look.long_sleeves else look.skin
        joints = pose.shoulders[side], pose.elbows[side], pose.hands[side]
        limb(*joints, (0.036, 0.03), (look.top, sleeve), shade)
        add((pose.hands[side],), 0.036, look.skin, shade)

    radii_leg = (0.038 * look.girth, 0.03 * look.girth)
    far, near = (0, 1) if pose.shoulders[1][2] > pose.shoulders[0][2] else (1, 0)
    leg(far, 0.75)
    if abs(pose.forward[0]) > 0.5:
        arm(far, 0.75)
    leg(near, 0.95)
    turned_away = pose.forward[2] < -0.2
    if not turned_away:
        _add_long_hair(add, pose, look)
    across = pose.hips[1] - pose.hips[0]
    waist = (pose.hips[0], pose.hips[1])
    if look.bottom_style == 'skirt':
        hem = [
            0.45 * pose.hips[side] + 0.55 * pose.knees[side] + sign * flare
            for side in (0, 1)
            for sign in (-1, 1)
            for flare in [0.25 * across + [0.03, 0, 0]]
        ]
        hull = cv2.convexHull(np.float32([p[:2] for p in (*waist, *hem)]))[:, 0]
        add(hull.astype(float), 0.03, look.bottom)
    else:
        add(waist, 0.042 * look.girth, look.bottom)
    chest = [shoulder - [0, 0.015, 0] for shoulder in pose.shoulders]
    belly = [hip - [0, -0.05, 0] for hip in pose.hips]
    torso = np.float32([p[:2] for p in (*chest, *belly)])
    add(cv2.convexHull(torso)[:, 0].astype(float), 0.042 * look.girth, look.top)
    if abs(pose.forward[0]) <= 0.5:
        arm(far, 0.85)
    _add_head(add, pose, look, turned_away)
    if turned_away:
        _add_long_hair(add, pose, look)
    arm(near, 0.85)
    return blobs


def _add_long_hair(add, pose, look):
    if look.hair_style == 'long':
        top = pose.head - [0.2 * pose.forward[0] * look.head, 0, 0]
        add((top, top - [0, 1.3 * look.head, 0]), 0.95 * look.head, look.hair)


def _add_head(add, pose, look, turned_away):
    radius, ahead = look.head, pose.forward[0]
    head, up = pose.head, np.array([0, look.head, 0])
    right = np.array([look.head, 0, 0])
    add((pose.neck, head), 0.03, look.skin, 0.9)
    if turned_away:
        add((head,), radius, look.skin if look.hair_style == 'bald' else look.hair)
    else:
        covered = look.hair_style != 'bald'
        add(
            (head - 0.2 * ahead * right + 0.1 * up,),
            radius,
            look.hair if covered else look.skin,
        )
        face = head + 0.2 * ahead * right - 0.14 * up
        add((face,), 0.84 * radius, look.skin)
        for side in (-0.36, 0.36):
            eye = face + (0.45 * ahead + side * pose.forward[2]) * right + 0.12 * up
            add((eye,), 0.12 * radius, (25, 20, 20))
        mouth = face + 0.45 * ahead * right - 0.42 * up
        half = 0.22 * max(0.4, pose.forward[2]) * right
        add((mouth - half, mouth + half), 0.05 * radius, (150, 50, 50))
    if look.hat_style != 'none':
        crown = head + 0.55 * up
        add((crown - 0.5 * right, crown + 0.5 * right), 0.52 * radius, look.hat)
        brim = 0.9 * right if look.hat_style == 'brim' else 0.5 * right
        front = (0.8 * ahead if look.hat_style == 'cap' else 0) * right
        rim = crown - 0.25 * up + front
        add((rim - brim, rim + brim), 0.14 * radius, look.hat, 0.8)


@lru_cache(maxsize=64)
def prop_blobs(prop):
    """A piece of furniture or a plant as blobs in the world."""
    rng = np.random.RandomState(prop.seed)
    color = _color(rng)
    dark = tuple(int(0.7 * channel) for channel in color)
    base, size = np.array([prop.x, prop.ground_y]), prop.size

    def blob(points, radius, color):
        return Blob(base + size * np.array(points, float), size * radius, color)

    def leaves(center, spread, count):
        return [
            blob(
                [np.array(center) + spread * rng.uniform(-1, 1, 2)],
                rng.uniform(0.15, 0.3),
                (rng.randint(20, 90), rng.randint(90, 170), rng.randint(20, 80)),
            )
            for _ in range(count)
        ]

    if prop.kind == 'table':
        feet = [blob([(x, -0.7), (x, 0)], 0.05, dark) for x in (-0.8, 0.8)]
        vase = blob([(0.3, -0.95), (0.3, -0.8)], 0.1, _color(rng))
        return [*feet, vase, blob([(-0.9, -0.72), (0.9, -0.72)], 0.07, color)]
    if prop.kind == 'plant':
        pot = blob([(-0.25, -0.4), (0.25, -0.4), (0.18, 0), (-0.18, 0)], 0.03, color)
        return [*leaves((0, -0.9), 0.4, 9), pot]
    if prop.kind == 'post':
        sign = blob([(-0.3, -2.6), (0.3, -2.6), (0.3, -2.2), (-0.3, -2.2)], 0, color)
        return [blob([(0, -2.6), (0, 0)], 0.07, dark), sign]
    if prop.kind == 'bush':
        return leaves((0, -0.35), 0.45, 14)
    if prop.kind == 'crate':
        edge = [(-0.5, -0.8), (0.5, -0.8), (0.5, 0), (-0.5, 0)]
        bars = [blob([(-0.5, y), (0.5, y)], 0.02, dark) for y in (-0.55, -0.28)]
        return [blob(edge, 0.03, color), *bars]
    feet = [blob([(x, -0.5), (x, 0)], 0.04, dark) for x in (-0.35, 0.35)]
    back = blob([(-0.38, -1.2), (-0.38, -0.5)], 0.06, color)
    return [*feet, back, blob([(-0.38, -0.5), (0.38, -0.5)], 0.07, color)]


def background(scene, size):
    """The painted world (h, w, 3) and the affine map (2, 3) from it to the world."""
    rng = np.random.RandomState(scene.seed)
    scale = SUPERSAMPLING * size[1]
    width, height = size[0] / size[1] + 2 * MARGIN, 1 + 2 * MARGIN
    shape = round(height * scale), round(width * scale)
    floor = round((rng.uniform(0.5, 0.66) + MARGIN) * scale)
    image = np.empty((*shape, 3), np.float32)
    image[:floor] = _texture(rng, (floor, shape[1]), scale)
    image[floor:] = _texture(rng, (shape[0] - floor, shape[1]), scale)
    image = np.clip(image, 0, 255).astype(np.uint8)
    to_image = np.array([[scale, 0, MARGIN * scale], [0, scale, MARGIN * scale]])
    floor_y = floor / scale - MARGIN
    paint(image, _clutter(rng, width - 2 * MARGIN, floor_y), to_image)
    grain = rng.randint(-9, 10, (*shape, 1))
    image = np.clip(image + grain, 0, 255).astype(np.uint8)
    from_image = np.array([[1 / scale, 0, -MARGIN], [0, 1 / scale, -MARGIN]])
    return image, from_image


def _texture(rng, shape, scale):
    """A coloured surface (h, w, 3) with blotches and stripes, bricks or checks."""
    rows = np.arange(shape[0])[:, None] / scale
    columns = np.arange(shape[1])[None] / scale
    cell, kind = rng.uniform(0.06, 0.16), rng.randint(5)
    if kind == 0:  # checks
        pattern = (rows // cell + columns // cell) % 2
    elif kind == 1:  # stripes
        pattern = columns // cell % 2
    elif kind == 2:  # bricks
        shifted = columns + cell * (rows // (cell / 2) % 2)
        pattern = (rows % (cell / 2) < 0.012) | (shifted % (2 * cell) < 0.012)
    elif kind == 3:  # planks
        pattern = rows % cell < 0.01
    else:
        pattern = 0
    blotches = cv2.resize(
        rng.uniform(-14, 14, (9, 14)).astype(np.float32),
        shape[::-1],
        interpolation=cv2.INTER_CUBIC,
    )
    light = blotches - rng.uniform(10, 32) * pattern
    color = np.array(_color(rng, 90, 225), float)
    # Muted, so that clothes stand out as they do in a room.
    return 0.5 * (color + color.mean()) + light[..., None]


def _clutter(rng, aspect, floor_y):
    """Things that hang on the wall or stand in front of it."""
    blobs = []
    for _ in range(rng.randint(3, 7)):
        x, y = rng.uniform(-0.3, aspect + 0.3), floor_y - rng.uniform(0.1, 0.45)
        on_wall, on_floor = np.array([x, y]), np.array([x, floor_y])
        width, height = rng.uniform(0.06, 0.22, 2)
        box = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * [width, height] / 2
        kind = rng.randint(3)
        if kind == 0:  # a picture or a window
            blobs.append(Blob(on_wall + box, 0.012, _color(rng)))
            blobs.append(Blob(on_wall + 0.8 * box, 0, _color(rng, 60, 255)))
            blobs.append(Blob(on_wall + 0.5 * box, 0.02, _color(rng, 60, 255)))
        elif kind == 1:  # a shelf of books
            blobs.append(Blob(on_floor + box, 0.02, _color(rng)))
            for i in range(rng.randint(3, 7)):
                book = (-0.4 + 0.13 * i) * width
                spine = np.array([(book, -0.3 * height), (book, 0.2 * height)])
                blobs.append(Blob(on_floor + spine, 0.05 * width, _color(rng)))
        else:  # a ball, a lamp, a loose thing
            points = rng.uniform(-0.06, 0.06, (rng.randint(1, 3), 2))
            blobs.append(Blob(on_wall + points, rng.uniform(0.01, 0.05), _color(rng)))
    return blobs


def _color(rng, low=30, high=240):
    return tuple(int(channel) for channel in rng.randint(low, high, 3))


def _layers(scene, t):
    """Blobs of people (with their index) and props (None), the farthest first."""
    layers = [
        (person.ground_y, i, person_blobs(person, t))
        for i, person in enumerate(scene.persons)
    ]
    layers += [(prop.ground_y, None, prop_blobs(prop)) for prop in scene.props]
    return [layer[1:] for layer in sorted(layers, key=lambda layer: layer[0])]


def render(scene, times, size):
    """Yields the frames (h, w, 3), RGB uint8, of a scene at the given times.

    Args:
        size (tuple[int, int]): width and height in pixels.
    """
    world, from_image = background(scene, size)
    large = (SUPERSAMPLING * size[0], SUPERSAMPLING * size[1])
    for t in times:
        matrix = scene.camera.matrix(t, large)
        whole = matrix[:, :2] @ from_image
        whole[:, 2] += matrix[:, 2]
        # warpAffine counts from the centres of pixels.
        whole[:, 2] += 0.5 * whole[:, :2].sum(1) - 0.5
        frame = cv2.warpAffine(world, whole, large, borderMode=cv2.BORDER_REFLECT)
        for _, blobs in _layers(scene, t):
            paint(frame, blobs, matrix)
        yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def locate(scene, t, size):
    """Boxes (k, 4) of all people, pixel xyxy not clipped, and how much of each shows.

    The second result (k,) is the share of a person's drawn area that lies inside the
    frame and behind nothing.
    """
    matrix = scene.camera.matrix(t, size)
    # Room on all sides for what lies outside of the frame.
    pad = size[1]
    padded = matrix + np.array([0, 0, pad])
    owner = np.zeros((size[1] + 2 * pad, size[0] + 2 * pad), np.uint8)
    bboxes, areas = np.zeros((len(scene.persons), 4)), np.ones(len(scene.persons))
    for i, blobs in _layers(scene, t):
        mask = np.zeros_like(owner)
        paint(mask, [Blob(p, r, 255) for p, r, _ in blobs], padded)
        covered = mask > 127
        owner[covered] = 0 if i is None else i + 1
        if i is not None:
            bboxes[i], areas[i] = extent(blobs, matrix), covered.sum()
    inside = owner[pad:-pad, pad:-pad]
    seen = np.bincount(inside.ravel(), minlength=len(scene.persons) + 1)[1:]
    return bboxes, seen / np.maximum(areas, 1)
