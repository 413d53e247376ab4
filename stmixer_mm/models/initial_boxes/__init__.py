"""The boxes that the queries start from."""

from stmixer_mm.models.initial_boxes.proposal_boxes import ProposalBoxes
from stmixer_mm.models.initial_boxes.simple_boxes import (
    GridBoxes,
    InitialBoxes,
    LearnedBoxes,
    WholeFrameBoxes,
)

__all__ = [
    'GridBoxes',
    'InitialBoxes',
    'LearnedBoxes',
    'ProposalBoxes',
    'WholeFrameBoxes',
]
