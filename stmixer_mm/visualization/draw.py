"""Boxes and labels drawn onto a frame, legible also on small ones."""

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

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


def draw_detections(
    frame: np.ndarray,
    bboxes: np.ndarray,
    actions: Sequence[Sequence[tuple[str, float | None]]],
    *,
    ids: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw persons and what they do.

    Args:
        frame (np.ndarray): (h, w, 3) uint8, left as it is.
        bboxes (np.ndarray): (n, 4) pixel xyxy.
        actions (Sequence): For each box its (label, score) pairs, best first; a score
            of None is not written. The first four are drawn.
        ids (Sequence[int], optional): A number per person that chooses the colour;
            by default the position in ``bboxes``.

    Returns:
        np.ndarray: A new frame. Labels stay inside it, and off each other where
        there is room.
    """
    canvas = np.ascontiguousarray(frame).copy()
    height, width = canvas.shape[:2]
    cap = float(np.clip(min(height, width) * 0.035, 8, 30))
    line_width = max(1, round(min(height, width) / 240))
    corners = np.clip(np.asarray(bboxes, float).reshape(-1, 4), -1e6, 1e6)
    corners = corners.round().astype(int)
    ids = range(len(corners)) if ids is None else ids

    for person, (x1, y1, x2, y2) in zip(ids, corners, strict=True):
        color = PALETTE[person % len(PALETTE)]
        # A dark rim keeps the box visible on a background of its own colour.
        for ink, thickness in (((0, 0, 0), line_width + 2), (color, line_width)):
            cv2.rectangle(canvas, (x1, y1), (x2, y2), ink, thickness, cv2.LINE_AA)

    taken: list[tuple[int, int, int, int]] = []
    for person, box, pairs in zip(ids, corners, actions, strict=True):
        lines = [_text(label, score) for label, score in pairs[:_MAX_LINES]]
        if lines:
            others = [tuple(other) for other in corners if other is not box]
            _draw_label(
                canvas, lines, box, PALETTE[person % len(PALETTE)], cap, taken, others
            )
    return canvas


def _text(label: str, score: float | None) -> str:
    # cv2's stroke fonts know ASCII only.
    plain = unicodedata.normalize('NFKD', label).encode('ascii', 'replace').decode()
    return plain if score is None else f'{plain} {score:.2f}'


def _draw_label(canvas, lines, box, color, cap, taken, others) -> None:
    scale = cap / _CAP_HEIGHT
    thickness = 1 if scale < 0.9 else 2
    pad = max(2, round(cap / 3))
    step = round(cap * 1.5)
    text_width = max(
        cv2.getTextSize(line, _FONT, scale, thickness)[0][0] for line in lines
    )
    size = (text_width + 2 * pad, step * len(lines) + pad)
    rect = _place(size, box, canvas.shape[:2], taken, others)
    taken.append(rect)

    x1, y1, x2, y2 = rect
    patch = canvas[y1:y2, x1:x2]
    patch[:] = (0.2 * patch + 0.8 * np.array(color)).astype(np.uint8)
    for row, line in enumerate(lines):
        baseline = y1 + pad + round(cap) + row * step
        cv2.putText(
            canvas,
            line,
            (x1 + pad, baseline),
            _FONT,
            scale,
            (0, 0, 0),
            thickness,
            cv2.LINE_AA,
        )


def _place(size, box, frame_shape, taken, others) -> tuple[int, int, int, int]:
    """The place beside or in ``box`` that covers the least of other things."""
    (width, height), (x1, y1, x2, y2) = size, box
    frame_height, frame_width = frame_shape
    corners = (
        (x1, y1 - height),
        (x1, y2),
        (x2, y1),
        (x1 - width, y1),
        (x2 - width, y1 - height),
        (x1, y1),
        (x1, y2 - height),
    )
    best, least = None, np.inf
    for rank, (left, top) in enumerate(corners):
        left = int(np.clip(left, 0, max(0, frame_width - width)))
        top = int(np.clip(top, 0, max(0, frame_height - height)))
        rect = (
            left,
            top,
            min(left + width, frame_width),
            min(top + height, frame_height),
        )
        cost = (
            10 * sum(_overlap(rect, other) for other in taken)
            + sum(_overlap(rect, other) for other in others)
            + 0.5 * _overlap(rect, tuple(box))
            + rank
        )
        if cost < least:
            best, least = rect, cost
    return best


def _overlap(a, b) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)
