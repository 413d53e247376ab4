"""Drawing of toy scenes: everything is made of convex polygons with rounded corners."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.random import RandomState

from stmixer_mm.datasets.toy.body import person_blobs
from stmixer_mm.datasets.toy.script import SQUARE, Blob, Scene

SUPERSAMPLING = 2
_SHIFT = 4  # fractional bits of the coordinates handed to OpenCV


def paint(
    image: np.ndarray, blobs: Iterable[Blob], scale: float, pad: float = 0
) -> None:
    """Paint blobs onto an image with ``pad`` pixels around, the first farthest away."""
    for points, radius, color in blobs:
        # The last term: OpenCV's integer coordinates are the centres of pixels.
        points = np.rint((scale * points + pad - 0.5) * 2**_SHIFT).astype(np.int32)
        color, width = np.float64(color).tolist(), max(1, round(2 * radius * scale))
        if len(points) > 2:
            cv2.fillConvexPoly(image, points, color, cv2.LINE_AA, _SHIFT)
        cv2.polylines(image, [points], True, color, width, cv2.LINE_AA, _SHIFT)


def render(
    scene: Scene, times: Iterable[float], size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yield the frames (h, w, 3), RGB uint8, of a scene; size is width and height."""
    width, height = (SUPERSAMPLING * side for side in size)
    room = _room(scene.seed, width, height)
    for t in times:
        frame = room.copy()
        for _, blobs in _layers(scene, t):
            paint(frame, blobs, height)
        yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def locate(
    scene: Scene, t: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where the people of a scene are, and how much of each is visible.

    Returns:
        Boxes (k, 4), whole pixels, xyxy, not clipped; the share (k,) of each person's
        drawn area that lies inside the frame and behind nothing.
    """
    width, height = size
    pad = height  # on all sides, for what lies outside of the frame
    owners = np.zeros((height + 2 * pad, width + 2 * pad), np.uint8)
    bboxes, areas = np.zeros((len(scene.persons), 4)), np.ones(len(scene.persons))
    for number, blobs in _layers(scene, t):
        mask = np.zeros_like(owners)
        paint(mask, [blob._replace(color=[255]) for blob in blobs], height, pad)
        drawn = mask > 127
        owners[drawn] = number
        if number and drawn.any():
            x, y, w, h = cv2.boundingRect(drawn.astype(np.uint8))
            bboxes[number - 1] = np.array([x, y, x + w, y + h]) - pad
            areas[number - 1] = np.count_nonzero(drawn)
    inside = owners[pad:-pad, pad:-pad]
    visible = np.bincount(inside.ravel(), minlength=len(areas) + 1)[1:]
    return bboxes, visible / areas


def _layers(scene: Scene, t: float) -> list[tuple[int, list[Blob]]]:
    """Blobs of people, numbered from 1 on, and of props (0), the farthest first."""
    layers = [(prop.points[:, 1].max(), 0, [prop]) for prop in scene.props]
    for number, person in enumerate(scene.persons, start=1):
        layers.append((person.ground_y, number, person_blobs(person, t)))
    return [layer[1:] for layer in sorted(layers, key=lambda layer: layer[0])]


def _room(seed: int, width: int, height: int) -> np.ndarray:
    """The wall with some pictures, and the floor (h, w, 3)."""
    rng = RandomState(seed)
    floor_y = rng.uniform(0.5, 0.66)
    image = np.empty((height, width, 3), np.uint8)
    for place in (slice(None), slice(round(floor_y * height), None)):
        color = rng.randint(90, 225, 3)
        # Muted, so that clothes stand out as they do in a room.
        image[place] = 0.3 * color + 0.7 * color.mean()
    for _ in range(rng.randint(3, 7)):
        center = rng.uniform((0, floor_y - 0.45), (width / height, floor_y - 0.1))
        for share in rng.uniform(0.06, 0.22, 2) * [[1], [0.5]]:
            color = rng.randint(30, 240, 3)
            paint(image, [Blob(center + share * SQUARE, 0.015, color)], height)
    grain = rng.randint(-9, 10, (height, width, 1))
    return (image + grain).clip(0, 255).astype(np.uint8)
