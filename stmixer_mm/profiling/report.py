"""Tables for people."""

import os
import platform
from collections.abc import Sequence

import torch


def format_table(rows: Sequence[Sequence[object]], *, left: int = 1) -> str:
    """Aligned columns, the first ``left`` ones to the left; the first row is the heading."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append('  '.join(cells).rstrip())
    lines.insert(1, '-' * max(map(len, lines)))
    return '\n'.join(lines)


def machine(device: str | torch.device) -> dict:
    """What figures depend on besides the program."""
    device = torch.device(device)
    name = platform.processor() or platform.machine()
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    return dict(
        device=str(device),
        name=name,
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
