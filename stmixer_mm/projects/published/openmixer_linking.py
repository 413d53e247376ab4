"""Linking of OpenMixer: boxes of neighbouring frames, whatever their overlap."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.tubes import remake


@dataclass(frozen=True, kw_only=True)
class OpenMixerLinking:
    """A box of a class joins the first tube that ends ``step`` frames before.

    The boxes are of frames that far apart, as ``protocol='openmixer'`` counts them. They
    are rounded, and interpolated linearly in between. A tube's score is the mean of its
    boxes.

    Raises:
        UserError: frames are nearer to each other.
    """

    step: int = 5
    by_lines: ClassVar[bool] = True  # which box is first decides, whatever it scores

    def link_video(
        self, length: int, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """See ``VideoLinking``."""
        if np.diff(np.unique(frames)).min(initial=self.step) < self.step:
            raise UserError(
                f"linking='openmixer' links frames {self.step} apart, but boxes are nearer; "
                "use it with protocol='openmixer'."
            )
        bboxes = np.round(bboxes)
        for column in range(1, scores.shape[1]):
            box_numbers = np.flatnonzero(scores[:, column] > 0)
            # The number of a box takes the place of its sides.
            numbered = np.column_stack(
                [frames[box_numbers], np.tile(box_numbers, (4, 1)).T]
            )
            for tube in remake([numbered], step=self.step):
                boxes = tube[:, 1].astype(int)
                tube_frames = np.arange(tube[0, 0], tube[-1, 0] + 1)
                sides = [
                    np.interp(tube_frames, tube[:, 0], side) for side in bboxes[boxes].T
                ]
                rows = np.column_stack([tube_frames, *sides])
                yield column, rows, float(scores[boxes, column].mean())


LINKINGS['openmixer'] = OpenMixerLinking()
