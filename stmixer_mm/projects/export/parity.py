"""Differences between the outputs of a file and of its model."""

from typing import NamedTuple

import torch
from torch import Tensor

from stmixer_mm.models.boxes import frame_scale
from stmixer_mm.projects.export.formats import Run
from stmixer_mm.projects.export.tensors import Outputs, TensorDetector, join


class Limits(NamedTuple):
    scores: float
    pixels: float


# By precision.
LIMITS = dict(
    fp32=Limits(1e-3, 0.5),
    fp16=Limits(1e-2, 2.0),
    bf16=Limits(0.1, 8.0),
    int8=Limits(0.3, 32.0),
)


class Parity(NamedTuple):
    """Largest differences over some clips."""

    clips: int
    person_scores: float
    action_scores: float
    pixels: float  # of the sides of boxes, of all queries
    kept: int  # queries kept by at least one of the two
    agreed: int  # queries kept by both

    def is_met(self, limits: Limits) -> bool:
        gaps = self.person_scores, self.action_scores, self.pixels
        most = limits.scores, limits.scores, limits.pixels
        # Not by max(), which could lose a NaN.
        return all(gap <= limit for gap, limit in zip(gaps, most, strict=True))


def compare(
    detector: TensorDetector, run: Run, clips: Tensor, *, batch: int | None = None
) -> Parity:
    """
    Args:
        detector: The detector that was exported.
        run: Runs the file.
        clips: (B, 3, T, h, w), uint8.
        batch: Clips that the file takes at once; None: all.
    """
    with torch.no_grad():
        ours = Outputs(*detector(clips))
    theirs = join(run(part.numpy()) for part in clips.split(batch or len(clips)))
    gaps = Outputs(*((a - b).abs() for a, b in zip(ours, theirs, strict=True)))
    pixels = gaps.bboxes * frame_scale(clips.shape[-2:], gaps.bboxes)
    head = detector.model.head
    kept = [
        head.score_queries(each.person_scores) >= head.score_thr
        for each in (ours, theirs)
    ]
    return Parity(
        len(clips),
        *(gap.max().item() for gap in (gaps.person_scores, gaps.action_scores, pixels)),
        kept=int((kept[0] | kept[1]).sum()),
        agreed=int((kept[0] & kept[1]).sum()),
    )
