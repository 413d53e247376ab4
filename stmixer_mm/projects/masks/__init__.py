"""Masks of persons: their data, the head and its metric."""

# ruff: noqa: F401
from stmixer_mm.projects.masks.data import KeyframeMaskDataset, PackMasks
from stmixer_mm.projects.masks.mask_ap_metric import MaskAPMetric
from stmixer_mm.projects.masks.mask_head import QueryMaskHead
