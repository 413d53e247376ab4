"""First boxes that are learned, or from mmdet's dense heads."""

# ruff: noqa: F401
from stmixer_mm.projects.proposals.learned_boxes import LearnedBoxes
from stmixer_mm.projects.proposals.proposal_boxes import ProposalBoxes
