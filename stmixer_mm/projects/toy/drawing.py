"""Drawing of toy scenes: everything is made of convex polygons with rounded corners."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import RandomState

from stmixer_mm.projects.toy.body import BALL, ball_at, grip_of, person_blobs
from stmixer_mm.projects.toy.script import SQUARE, Blob, Scene

SUPERSAMPLING = 2
_SHIFT = 4  # fractional bits of the coordinates handed to OpenCV


View = list[tuple[int, list[Blob]]]


def view_at(scene: Scene, t: float) -> View:
    """Blobs of people, numbered from 1 on, and of props (0), the farthest first."""
    layers = [(prop.points[:, 1].max(), 0, [prop]) for prop in scene.props]
    for number, person in enumerate(scene.persons, start=1):
        blobs = person_blobs(person, t, grip_of(scene, number - 1, t))
        layers.append((person.y_at(t), number, blobs))
    for item in scene.items:
        holders = {item.holders[k] for k in (int(t), math.ceil(t))}
        ground_y = max(scene.persons[i].ground_y for i in holders)
        middle, radius = [ball_at(scene, item, t)], BALL * scene.persons[0].height
        balls = [(radius, 0.2 * item.color), (0.8 * radius, item.color)]
        layers.append((ground_y, 0, [Blob(middle, *ball) for ball in balls]))
    return [layer[1:] for layer in sorted(layers, key=lambda layer: layer[0])]


def paint(
    image: np.ndarray,
    blobs: Sequence[Blob],
    scale: float,
    *,
    corner: Sequence[int] | np.ndarray = (0, 0),
    color: float | None = None,
) -> None:
    """Paint blobs, the first farthest away, in their colours or all in one.

    ``corner`` is where the upper left corner of the image is.
    """
    points = np.concatenate([blob.points for blob in blobs])
    # The last term: OpenCV's integer coordinates are the centres of pixels.
    points = np.rint((scale * points - corner - 0.5) * 2**_SHIFT).astype(np.int32)
    start = 0
    for outline, radius, blob_color in blobs:
        part = points[start : start + len(outline)]
        start += len(outline)
        ink = np.float64(blob_color).tolist() if color is None else color
        width = max(1, round(2 * radius * scale))
        if len(part) > 2:
            cv2.fillConvexPoly(image, part, ink, cv2.LINE_AA, _SHIFT)
        cv2.polylines(image, [part], True, ink, width, cv2.LINE_AA, _SHIFT)


def render(
    scene: Scene, views: Iterable[View], size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yield the frames (h, w, 3), RGB uint8, of a scene; size is width and height."""
    width, height = (SUPERSAMPLING * side for side in size)
    room = _room(scene.seed, width, height)
    for view in views:
        frame = room.copy()
        for _, blobs in view:
            paint(frame, blobs, height)
        yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


class Located(NamedTuple):
    """Positions of k people in a frame."""

    bboxes: np.ndarray  # (k, 4): whole pixels, xyxy, not clipped
    shares: np.ndarray  # (k,): how much of each one's drawn area is visible
    owners: np.ndarray  # (h, w): number of the person seen in a pixel, from 1; 0: none


def locate(view: View, size: tuple[int, int]) -> Located:
    """Positions of people, and how much of each is visible."""
    width, height = size
    owners = np.zeros((height, width), np.uint8)
    count = max(number for number, _ in view)
    bboxes, areas = np.zeros((count, 4)), np.ones(count)
    for number, blobs in view:
        mask, corner = _silhouette(blobs, size)
        drawn = mask > 127
        # The part of the mask that lies inside the frame.
        first, last = corner.clip(0), (corner + mask.shape[::-1]).clip(None, size)
        (x1, y1), (x2, y2) = first, np.maximum(first, last)
        x0, y0 = first - corner
        inside = drawn[y0 : y0 + y2 - y1, x0 : x0 + x2 - x1]
        owners[y1:y2, x1:x2][inside] = number
        if number and drawn.any():
            x, y, w, h = cv2.boundingRect(drawn.astype(np.uint8))
            bboxes[number - 1] = np.array([x, y, x + w, y + h]) + np.tile(corner, 2)
            areas[number - 1] = np.count_nonzero(drawn)
    visible = np.bincount(owners.ravel(), minlength=count + 1)[1:]
    return Located(bboxes, visible / areas, owners)


def _silhouette(
    blobs: Sequence[Blob], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Blobs in white, as far as they lie within a frame height around the frame.

    Returns:
        An image of them, and the position of its upper left corner.
    """
    height = size[1]
    points = height * np.concatenate([blob.points for blob in blobs])
    margin = height * max(blob.radius for blob in blobs) + 3
    corner = np.floor(points.min(axis=0) - margin).clip(-height).astype(int)
    end = np.ceil(points.max(axis=0) + margin).clip(None, np.add(size, height))
    width, height = (end - corner).astype(int).clip(0)
    mask = np.zeros((height, width), np.uint8)
    if mask.size:
        paint(mask, blobs, size[1], corner=corner, color=255)
    return mask, corner


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
