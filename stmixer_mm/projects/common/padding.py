"""Rows of clips as one tensor.

Shapes: B clips, k rows of a clip, P slots.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stmixer_mm.models.data_preprocessor import move_together


def pad_clips(
    fields: Sequence[Sequence[Tensor]],
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Rows (k, ·) of each clip as (B, P, ·), P at least 1, with zeros behind them.

    Args:
        fields: For several kinds of rows, those of each clip.

    Returns:
        The fields, and which rows are padding, (B, P) bool, on the device and the host.
    """
    counts = np.array([len(rows) for rows in fields[0]])
    slots, ends = np.arange(max(1, *counts)), counts.cumsum()
    padding = slots >= counts[:, None]
    places = np.where(padding, ends[-1], slots + (ends - counts)[:, None])
    numbers = torch.from_numpy(places), torch.from_numpy(padding)
    places, on_device = move_together(numbers, fields[0][0].device)
    padded = [
        torch.cat((*rows, rows[0].new_zeros(1, *rows[0].shape[1:])))[places]
        for rows in fields
    ]
    return padded, on_device, numbers[1]
