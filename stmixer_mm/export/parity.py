"""Whether a file says what the model says."""

from typing import NamedTuple

import torch
from torch import Tensor

from stmixer_mm.export.formats import Run
from stmixer_mm.export.tensors import Outputs, TensorDetector


class Limits(NamedTuple):
    scores: float
    pixels: float


class Parity(NamedTuple):
    """Largest differences over some clips."""

    person_scores: float
    action_scores: float
    pixels: float  # of the sides of boxes, of all queries
    kept: int  # queries that one of both keeps
    agreed: int  # queries that both keep

    def is_met(self, limits: Limits) -> bool:
        scores = max(self.person_scores, self.action_scores)
        return scores <= limits.scores and self.pixels <= limits.pixels


LIMITS = {False: Limits(1e-3, 0.5), True: Limits(1e-2, 2.0)}  # by whether it is in half


def compare(detector: TensorDetector, run: Run, clips: Tensor) -> Parity:
    """
    Args:
        detector: What was exported.
        run: What runs the file.
        clips: (B, 3, T, h, w), uint8.
    """
    with torch.no_grad():
        ours = Outputs(*detector(clips))
    theirs = Outputs(*map(torch.from_numpy, run(clips.numpy())))
    gaps = Outputs(*((a - b).abs() for a, b in zip(ours, theirs, strict=True)))
    height, width = detector.size
    pixels = gaps.bboxes * gaps.bboxes.new_tensor((width, height, width, height))
    threshold = detector.model.head.score_thr
    kept = [each.person_scores >= threshold for each in (ours, theirs)]
    return Parity(
        *(gap.max().item() for gap in (gaps.person_scores, gaps.action_scores, pixels)),
        kept=int((kept[0] | kept[1]).sum()),
        agreed=int((kept[0] & kept[1]).sum()),
    )
