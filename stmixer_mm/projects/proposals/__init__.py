"""First boxes from mmdet's dense heads."""

# ruff: noqa: F401
from stmixer_mm.projects.proposals.proposal_boxes import ProposalBoxes
