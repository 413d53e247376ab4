"""Drawing of toy scenes: everything is made of convex polygons with rounded corners."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.random import RandomState

from stmixer_mm.datasets.toy.body import Blob, person_blobs
from stmixer_mm.datasets.toy.script import Scene

MARGIN = 0.45  # width of the world around the view that is painted, in frame heights
SUPERSAMPLING = 2
_SHIFT = 4  # fractional bits of the coordinates handed to OpenCV
_SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2


def paint(
    image: np.ndarray, blobs: Iterable[Blob], scale: float, offset: np.ndarray
) -> None:
    """Paint blobs onto an image, the first one farthest away."""
    for points, radius, color in blobs:
        # The last term: OpenCV's integer coordinates are the centres of pixels.
        points = np.rint((scale * points + offset - 0.5) * 2**_SHIFT).astype(np.int32)
        color, radius = np.array(color, float).tolist(), radius * scale
        if len(points) > 2:
            cv2.fillConvexPoly(image, points, color, cv2.LINE_AA, _SHIFT)
        if len(points) > 1:
            width = max(1, round(2 * radius))
            cv2.polylines(image, [points], True, color, width, cv2.LINE_AA, _SHIFT)
        else:
            center, radius = points[0].tolist(), round(radius * 2**_SHIFT)
            cv2.circle(image, center, radius, color, -1, cv2.LINE_AA, _SHIFT)


def render(
    scene: Scene, times: Iterable[float], size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yield the frames (h, w, 3), RGB uint8, of a scene; size is width and height."""
    world, world_scale = _background(scene, size), SUPERSAMPLING * size[1]
    large = (SUPERSAMPLING * size[0], SUPERSAMPLING * size[1])
    for t in times:
        scale, offset = scene.camera.view(t, large)
        zoom, shift = scale / world_scale, offset - scale * MARGIN
        # warpAffine counts from the centres of pixels.
        whole = np.column_stack([zoom * np.eye(2), shift + 0.5 * zoom - 0.5])
        frame = cv2.warpAffine(world, whole, large, borderMode=cv2.BORDER_REFLECT)
        for _, blobs in _layers(scene, t):
            paint(frame, blobs, scale, offset)
        yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def locate(
    scene: Scene, t: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the people of a scene are, and how much of each is visible.

    Returns:
        Boxes (k, 4), pixel xyxy, not clipped; whose pixel each one of the frame is
        (h, w), a person's number from 1 on or 0; the share (k,) of each person's drawn
        area that lies inside the frame and behind nothing.
    """
    pad = size[1]  # on all sides, for what lies outside of the frame
    scale, offset = scene.camera.view(t, size)
    owners = np.zeros((size[1] + 2 * pad, size[0] + 2 * pad), np.uint8)
    bboxes, areas = np.zeros((len(scene.persons), 4)), np.ones(len(scene.persons))
    for number, blobs in _layers(scene, t):
        mask = np.zeros_like(owners)
        paint(mask, [blob._replace(color=[255]) for blob in blobs], scale, offset + pad)
        owners[mask > 127] = number
        if number:
            lows = [blob.points.min(0) - blob.radius for blob in blobs]
            highs = [blob.points.max(0) + blob.radius for blob in blobs]
            corners = np.stack([np.min(lows, axis=0), np.max(highs, axis=0)])
            bboxes[number - 1] = (scale * corners + offset).ravel()
            areas[number - 1] = max(1, np.count_nonzero(mask > 127))
    owners = owners[pad:-pad, pad:-pad]
    visible = np.bincount(owners.ravel(), minlength=len(areas) + 1)[1:]
    return bboxes, owners, visible / areas


def _layers(scene: Scene, t: float) -> list[tuple[int, list[Blob]]]:
    """Blobs of people, numbered from 1 on, and of props (0), the farthest first."""
    layers = []
    for x, ground_y, width, height, color in scene.props:
        points = (_SQUARE - [0, 0.5]) * [width, height] + np.array([x, ground_y])
        layers.append((ground_y, 0, [Blob(points, 0.01, color)]))
    for number, person in enumerate(scene.persons, start=1):
        layers.append((person.ground_y, number, person_blobs(person, t)))
    return [layer[1:] for layer in sorted(layers, key=lambda layer: layer[0])]


def _background(scene: Scene, size: tuple[int, int]) -> np.ndarray:
    """The wall with some pictures, and the floor (h, w, 3), with a margin around."""
    rng = RandomState(scene.seed)
    scale, aspect = SUPERSAMPLING * size[1], size[0] / size[1]
    width, height = (
        round((aspect + 2 * MARGIN) * scale),
        round((1 + 2 * MARGIN) * scale),
    )
    floor_y = rng.uniform(0.5, 0.66)
    floor = round((floor_y + MARGIN) * scale)
    surfaces = [_texture(rng, rows, width, scale) for rows in (floor, height - floor)]
    image = np.concatenate(surfaces).clip(0, 255).astype(np.uint8)
    pictures = []
    for _ in range(rng.randint(3, 7)):
        place = rng.uniform((-0.3, floor_y - 0.45), (aspect + 0.3, floor_y - 0.1))
        box = _SQUARE * rng.uniform(0.06, 0.22, 2)
        for share in (1, 0.5):
            pictures.append(Blob(place + share * box, 0.015, rng.randint(30, 240, 3)))
    paint(image, pictures, scale, np.full(2, MARGIN * scale))
    grain = rng.randint(-9, 10, (height, width, 1))
    return (image + grain).clip(0, 255).astype(np.uint8)


def _texture(rng: RandomState, height: int, width: int, scale: float) -> np.ndarray:
    """A coloured surface (h, w, 3): plain or with stripes, planks or checks."""
    y, x = np.indices((height, width)) // (scale * rng.uniform(0.06, 0.16))
    pattern = (rng.randint(2) * x + rng.randint(2) * y) % 2
    noise = rng.uniform(-14, 14, (9, 14)).astype(np.float32)
    blotches = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    light = blotches - rng.uniform(10, 32) * pattern
    color = rng.randint(90, 225, 3)
    # Muted, so that clothes stand out as they do in a room.
    return 0.5 * (color + color.mean()) + light[..., None]
