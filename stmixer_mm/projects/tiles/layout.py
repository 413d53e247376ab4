"""Positions of the tiles of a frame.

Sizes are (height, width); lengths are in pixels of the frame.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Height that a person must have in the frames that the model gets, to be found: cells
# of the finest feature map times its usual stride.
VISIBLE = 6 * 4
LEAST_SIDE = 32  # of a tile


class Layout(NamedTuple):
    """Tiles of one size, in rows and columns that cover the frame evenly."""

    frame: tuple[int, int]
    tile: tuple[int, int]
    grid: tuple[int, int]  # rows, columns

    def boxes(self) -> np.ndarray:
        """(V, 4) int, xyxy: the whole frame, then each tile."""
        tops, lefts = (
            np.linspace(0, side - part, count).round().astype(int)
            for side, part, count in zip(*self, strict=True)
        )
        height, width = self.tile
        tiles = [(x, y, x + width, y + height) for y in tops for x in lefts]
        return np.array([(0, 0, *self.frame[::-1]), *tiles])


def lay_out(
    frame: tuple[int, int],
    grid: Sequence[int],
    person: float,
    *,
    alike: bool = False,
) -> Layout:
    """Tiles of a frame in a grid.

    Args:
        frame: Its size.
        grid: Rows and columns.
        person: Height of the smallest person that the whole frame shows to the model.
            Neighbours overlap by as much, so that smaller ones are whole in some tile;
            but at most by half a tile.
        alike: Give tiles the proportions of the frame, so that pipelines make clips of
            one size of both.
    """
    # From n * side - (n - 1) * overlap = length, with an overlap of person or side / 2.
    sides = [
        min((length + (n - 1) * person) / n, 2 * length / (n + 1))
        for length, n in zip(frame, grid, strict=True)
    ]
    tile = tuple(math.ceil(side) for side in sides)
    if alike:
        share = max(side / length for side, length in zip(sides, frame, strict=True))
        tile = _proportional(frame, share)
    return Layout(frame, tile, tuple(grid))


def lay_out_for(frame: tuple[int, int], smallest: float, person: float) -> Layout:
    """The fewest tiles, of the frame's proportions, that show small persons.

    Args:
        frame: Its size.
        smallest: Height of the smallest person to show.
        person: See :func:`lay_out`.
    """
    share = smallest / person  # of the frame, which the model gets in the same size
    if share >= 1:
        return Layout(frame, frame, (1, 1))
    grid = []
    for length in frame:
        overlap = min(person, share * length / 2)
        grid.append(math.ceil((length - overlap) / (share * length - overlap)))
    return Layout(frame, _proportional(frame, share), tuple(grid))


def _proportional(frame: tuple[int, int], share: float) -> tuple[int, int]:
    """A size of a share of the frame's or little more, near to its proportions."""
    height, width = frame
    least = math.ceil(share * height)

    def rounding(num_lines: int) -> float:
        return abs(num_lines * width / height - round(num_lines * width / height))

    # Pipelines round: among whole numbers of lines, take the one with the best width.
    num_lines = min(range(least, min(least + 16, height + 1)), key=rounding)
    return num_lines, round(num_lines * width / height)
