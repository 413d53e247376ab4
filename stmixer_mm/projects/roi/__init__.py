"""The two-stage baseline: mmaction2's RoI head on the same feature maps."""

# ruff: noqa: F401
from stmixer_mm.projects.roi.proposals import KeyframeProposalDataset
from stmixer_mm.projects.roi.roi_detector import RoIDetector
