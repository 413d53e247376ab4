"""Linking of OpenMixer: boxes of neighbouring frames, whatever their overlap."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.tubes import remake


@dataclass(frozen=True, kw_only=True)
class OpenMixerLinking:
    """A box of a class joins the first tube that ends ``step`` frames before.

    Of the frames with boxes, each ``step``-th counts from the first; boxes are rounded,
    and interpolated linearly in between. A tube's score is the mean of its boxes. Known
    from a description of the code, not compared with it.
    """

    step: int = 5

    def link_video(
        self, length: int, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """See ``VideoLinking``."""
        counted = (frames - frames[0]) % self.step == 0
        frames = frames[counted]
        bboxes = np.round(bboxes[counted])
        scores = scores[counted]
        for column in range(1, scores.shape[1]):
            own = np.flatnonzero(scores[:, column] > 0)
            # The number of a box takes the place of its sides.
            numbered = np.column_stack([frames[own], np.tile(own, (4, 1)).T])
            for tube in remake([numbered], step=self.step):
                boxes = tube[:, 1].astype(int)
                every = np.arange(tube[0, 0], tube[-1, 0] + 1)
                sides = [np.interp(every, tube[:, 0], side) for side in bboxes[boxes].T]
                rows = np.column_stack([every, *sides])
                yield column, rows, float(scores[boxes, column].mean())


LINKINGS['openmixer'] = OpenMixerLinking()
