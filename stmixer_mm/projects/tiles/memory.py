"""Memory that views of a clip take, and that is free."""

from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

CGROUP = Path('/sys/fs/cgroup')  # of a container


def least_bytes(model: nn.Module, inputs: dict) -> int:
    """Bytes that a model takes at least at once, for each clip of a batch.

    The largest input and output of a module are there at the same time, and of an
    exported file at least the clip.
    """
    largest = 5 * inputs['inputs'].numel()  # uint8 and float32

    def weigh(_module: nn.Module, args: tuple, output: object) -> None:
        nonlocal largest
        tensors = [one for one in (*args, output) if isinstance(one, Tensor)]
        largest = max(largest, sum(one.nbytes for one in tensors))

    with ExitStack() as stack, torch.inference_mode():
        for module in model.modules():
            stack.callback(module.register_forward_hook(weigh).remove)
        model.test_step(pseudo_collate([inputs]))
    return largest


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where that is unknown."""
    if device.type == 'cuda':
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    if device.type != 'cpu':
        return None
    sizes = []
    with suppress(OSError, StopIteration):
        lines = Path('/proc/meminfo').read_text().splitlines()
        line = next(line for line in lines if line.startswith('MemAvailable'))
        sizes.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # there may be none, or 'max'
        limit, used = (
            int((CGROUP / name).read_text())
            for name in ('memory.max', 'memory.current')
        )
        sizes.append(limit - used)
    return min(sizes, default=None)
