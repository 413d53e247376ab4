"""Boxes, labels and headings drawn onto frames, legible also on small ones."""

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np

from stmixer_mm.errors import UserError
from stmixer_mm.files import atomic_path
from stmixer_mm.pictures import warp_mask

Color = tuple[int, int, int]  # RGB
Rect = tuple[int, int, int, int]  # xyxy in pixels

MIN_SIDE = 360  # pixels of a frame's short side from which on labels cover little

# All light enough for black text.
PALETTE = (
    (255, 193, 7),
    (100, 190, 255),
    (120, 235, 120),
    (255, 130, 180),
    (200, 160, 255),
    (255, 150, 90),
    (90, 230, 220),
    (235, 235, 90),
    (255, 190, 220),
    (190, 200, 170),
)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAP_HEIGHT = 22  # pixels of a capital letter at font scale 1
_MAX_LINES = 4
_DARK, _WHITE = (32, 32, 32), (255, 255, 255)


def enlarge(frame: np.ndarray) -> tuple[np.ndarray, float]:
    """A frame (h, w, 3) of at least ``MIN_SIDE`` on its short side, and its factor.

    A network's frames are often so small that labels would cover the persons.
    """
    height, width = frame.shape[:2]
    factor = max(1.0, MIN_SIDE / min(height, width))
    if factor == 1:
        return frame, factor
    size = round(width * factor), round(height * factor)
    return cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), factor


def person_colors(ids: Iterable[int]) -> list[list[Color]]:
    """The colour of a person, by the person's number."""
    return [[PALETTE[number % len(PALETTE)]] for number in ids]


def draw_detections(
    frame: np.ndarray,
    bboxes: np.ndarray,
    actions: Sequence[Sequence[tuple[str, float | None]]],
    *,
    ids: Sequence[int] | None = None,
    colors: Sequence[Sequence[Color]] | None = None,
    masks: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Draw persons and their actions.

    Args:
        frame: (h, w, 3) uint8, which is not changed.
        bboxes: (n, 4) pixel xyxy.
        actions: For each box its (label, score) pairs, best first; a score of None is
            not written. The first four are drawn, the others counted.
        ids: For each box the number of its person, written in its lower left corner.
        colors: For each box the colours of its actions in turn; the first is the box's
            too. None: :func:`person_colors` by ``ids`` or the position in ``bboxes``.
        masks: For each box which pixels are the person's, at any size of the frame.

    Returns:
        A new frame. Labels stay inside it, and off each other where there is room.
    """
    canvas = np.ascontiguousarray(frame).copy()
    height, width = canvas.shape[:2]
    line_width = max(1, round(min(height, width) / 240))
    bboxes = np.asarray(bboxes, float).reshape(-1, 4).clip(-1e6, 1e6)
    boxes = bboxes.round().astype(int).tolist()
    if colors is None:
        colors = person_colors(range(len(boxes)) if ids is None else ids)
    for (color, *_), mask in zip(colors, () if masks is None else masks, strict=False):
        inside = cv2.resize(255 * mask.astype(np.uint8), (width, height)) > 127
        canvas[inside] = _blend(canvas[inside], color, 0.5)
    for (color, *_), (x1, y1, x2, y2) in zip(colors, boxes, strict=True):
        # A dark rim keeps the box visible on a background of its own colour.
        for ink, thickness in (((0, 0, 0), line_width + 2), (color, line_width)):
            cv2.rectangle(canvas, (x1, y1), (x2, y2), ink, thickness, cv2.LINE_AA)
    pen, rects = _Pen(canvas, bboxes[:, 3] - bboxes[:, 1]), []
    for number, inks, box in zip(ids or (), colors, boxes, strict=False):
        rects.append(_write_id(canvas, pen, str(number), box, inks))
    for inks, box, pairs in zip(colors, boxes, actions, strict=True):
        lines = [pen.shorten(*pair, width - 2 * pen.pad) for pair in pairs[:_MAX_LINES]]
        if len(pairs) > _MAX_LINES:
            lines.append(f'+ {len(pairs) - _MAX_LINES} more')
        if lines:
            label_width = max(map(pen.width, lines)) + 2 * pen.pad
            size = label_width, pen.step * len(lines)
            rects.append(_place(size, box, (width, height), rects))
            _draw_label(canvas, pen, lines, rects[-1], inks)
    return canvas


def _blend(pixels: np.ndarray, color: Color, share: float) -> np.ndarray:
    return ((1 - share) * pixels + share * np.array(color)).astype(np.uint8)


def _draw_label(
    canvas: np.ndarray,
    pen: '_Pen',
    lines: Sequence[str],
    rect: Rect,
    colors: Sequence[Color],
) -> None:
    x1, y1, x2, y2 = rect
    tops = range(y1, y2, pen.step)
    for top, line, color in zip(tops, lines, cycle(colors), strict=False):
        patch = canvas[top : min(top + pen.step, y2), x1:x2]
        patch[:] = _blend(patch, color, 0.8)
        pen.write(canvas, line, x1 + pen.pad, top + pen.pad, (0, 0, 0))


def _write_id(
    canvas: np.ndarray, pen: '_Pen', text: str, box: Rect, colors: Sequence[Color]
) -> Rect:
    """Write in the lower left corner of a box, within the frame; the place taken."""
    size = np.array((pen.width(text) + 2 * pen.pad, pen.step))
    lowest = np.maximum(np.subtract(canvas.shape[1::-1], size), 0)
    x, y = np.clip((box[0], box[3] - size[1]), 0, lowest).tolist()
    rect = x, y, x + int(size[0]), y + int(size[1])
    _draw_label(canvas, pen, [text], rect, colors)
    return rect


def _place(
    size: tuple[int, int],
    box: Rect,
    frame_size: tuple[int, int],
    label_rects: Sequence[Rect],
) -> Rect:
    """The place above, below, beside or in ``box`` that covers least of other labels.

    Sizes are (width, height).
    """
    (width, height), (x1, y1, x2, y2) = size, box
    corners = (x1, y1 - height), (x1, y2), (x2, y1), (x1 - width, y1), (x1, y1)
    lowest = np.maximum(np.subtract(frame_size, size), 0)
    tops_left = np.clip(corners, 0, lowest)
    rects = np.hstack((tops_left, np.minimum(tops_left + size, frame_size)))
    label_rects = np.reshape(label_rects, (-1, 1, 4))
    sides = np.minimum(rects[:, 2:], label_rects[..., 2:])
    sides = (sides - np.maximum(rects[:, :2], label_rects[..., :2])).clip(0)
    return tuple(rects[sides.prod(axis=-1).sum(axis=0).argmin()].tolist())


def move_mask(
    mask: np.ndarray, size: tuple[int, int], bbox: np.ndarray, to_bbox: np.ndarray
) -> np.ndarray:
    """A mask, moved with its box, (h, w) bool.

    Args:
        mask: At any size of the frame.
        size: (h, w) of the frame that the boxes are in.
        bbox, to_bbox: Pixel xyxy, before and after.
    """
    (low, high), (to_low, to_high) = (
        np.reshape(corners, (2, 2)) for corners in (bbox, to_bbox)
    )
    scale = (to_high - to_low) / np.maximum(high - low, 1)
    enlarged = np.divide(size, mask.shape)[::-1]
    return warp_mask(mask, scale * enlarged, to_low - scale * low, size)


def side_by_side(
    views: Sequence[np.ndarray], headings: Sequence[Sequence[tuple[str, Color | None]]]
) -> np.ndarray:
    """Views (h, w, 3) of one frame, each below its heading, with a line between.

    Args:
        views: The views.
        headings: For each view (text, colour) pairs, a legend; text of the colour None
            is white.
    """
    gap = np.full((1, 8, 3), _DARK, np.uint8)
    gap[:, 2:-2] = _WHITE
    columns = []
    for view, heading in zip(views, headings, strict=True):
        column = np.concatenate([_heading(heading, view), view])
        if columns:
            columns.append(gap.repeat(len(column), axis=0))
        columns.append(column)
    return np.concatenate(columns, axis=1)


def write_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture (h, w, 3) RGB to a file, and make its folder if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        if not cv2.imwrite(str(part), picture[..., ::-1]):
            raise UserError(f'The image {path} cannot be written; is the disk full?')


class _Pen:
    """Text of a size that fits a frame, and persons who are small in it."""

    def __init__(self, frame: np.ndarray, heights: Sequence[float] = ()) -> None:
        cap = min(frame.shape[:2]) * 0.035
        if len(heights):
            # In steps, so that text does not shrink and grow from frame to frame.
            cap = min(cap, 4 * round(np.median(heights) * 0.03))
        self.cap = float(np.clip(cap, 8, 30))
        self.pad = max(3, round(self.cap / 2.5))
        self.step = round(self.cap) + 2 * self.pad
        scale = self.cap / _CAP_HEIGHT
        self._style = _FONT, scale, 1 if scale < 0.9 else 2

    def width(self, text: str) -> int:
        return cv2.getTextSize(text, *self._style)[0][0]

    def shorten(self, label: str, score: float | None, width: int) -> str:
        """The text for an action, without the end of its label if it is too long."""
        # The stroke fonts of OpenCV have ASCII only.
        parts = unicodedata.normalize('NFKD', label)
        plain = ''.join(part for part in parts if not unicodedata.combining(part))
        plain = plain.encode('ascii', 'replace').decode()
        tail = '' if score is None else f' {score:.2f}'
        text, end = plain + tail, len(plain)
        while self.width(text) > width and end > 1:
            end -= 1
            text = f'{plain[:end]}...{tail}'
        return text

    def write(
        self, canvas: np.ndarray, text: str, x1: int, y1: int, color: Color
    ) -> None:
        font, scale, thickness = self._style
        corner = (x1, y1 + round(self.cap))
        cv2.putText(canvas, text, corner, font, scale, color, thickness, cv2.LINE_AA)


def _heading(
    heading: Sequence[tuple[str, Color | None]], view: np.ndarray
) -> np.ndarray:
    """A strip as wide as the view, in which the heading is written."""
    pen = _Pen(view)
    strip = np.full((pen.step + 2 * pen.pad, view.shape[1], 3), _DARK, np.uint8)
    x1 = pen.pad
    for text, color in heading:
        x2 = x1 + pen.width(text) + 2 * pen.pad
        if color is not None:
            strip[pen.pad : -pen.pad, x1:x2] = color
        ink = _WHITE if color is None else (0, 0, 0)
        pen.write(strip, text, x1 + pen.pad, 2 * pen.pad, ink)
        x1 = x2 + pen.pad
    return strip
