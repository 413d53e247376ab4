"""RAM, or a GPU's memory, that a computation takes."""

import ctypes
from collections.abc import Callable

import torch


def bytes_in_use(device: torch.device) -> int:
    """Bytes in use, after giving free RAM back to the system; peaks count from here."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')
    return _status('VmRSS')


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Bytes at the peak of a computation, beyond those in use before it."""
    base_bytes = bytes_in_use(device)
    run()
    is_cuda = device.type == 'cuda'
    peak = torch.cuda.max_memory_allocated(device) if is_cuda else _status('VmHWM')
    return max(0, peak - base_bytes)


def _status(field: str) -> int:
    with open('/proc/self/status') as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) * 1024
