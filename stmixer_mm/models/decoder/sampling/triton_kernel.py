"""Both means in one Triton kernel: for GPUs, where Triton is installed.

Shapes: as in :mod:`.sampler`; S cells of all levels.
"""

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from stmixer_mm.compat import constant_in_graphs, stack_numbers
from stmixer_mm.models.decoder.sampling.sampler import Sampler, join_cells

_IS_INSTALLED = find_spec('triton') is not None


@constant_in_graphs
def is_available(device: torch.device) -> bool:
    """True if Triton is installed and runs on a device, of capability 7.0 or more.

    On a CPU it does, slowly, if TRITON_INTERPRET=1 was set before it was imported.
    """
    if not _IS_INSTALLED or os.environ.get('TRITON_INTERPRET') == '1':
        return _IS_INSTALLED
    return device.type == 'cuda' and torch.cuda.get_device_capability(device) >= (7, 0)


class TritonSampler(Sampler):
    """All frames of a cell lie together: one visit to a cell serves both means."""

    reads_half = True
    is_available = staticmethod(is_available)

    def lay_out(self, feats: list[Tensor]) -> None:
        self.table = join_cells(feats, self.num_groups, self.dtype)
        levels, first_cell = [], 0
        for height, width in self.level_sizes:
            levels += width, height, first_cell
            first_cell += height * width
        of_table = dict(dtype=torch.int32, device=self.table.device)
        self.levels = stack_numbers(levels, **of_table).view(-1, 3)

    def means(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        from stmixer_mm.models.decoder.sampling.fused_means import fused_means

        dtype = torch.promote_types(self.table.dtype, torch.float32)
        return fused_means(
            self.table,
            self.levels,
            self.extents.to(dtype),
            points_xy.to(dtype),
            weights.to(dtype),
        )
