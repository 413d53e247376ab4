"""RAM, or a GPU's memory, that a computation takes."""

import ctypes
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def bytes_kept_for_backward(run: Callable[[], object], given: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps of a computation.

    Args:
        run: The computation; what it returns is dropped.
        given: Tensors that are there anyway, such as parameters and inputs.
    """
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    given = {tensor.untyped_storage().data_ptr() for tensor in given}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = run()  # alive until everything is counted
    total = sum(size for where, size in kept.items() if where not in given)
    del outputs
    return total


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that a computation takes at its worst, beyond those taken before it."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    before = resident_bytes()
    run()
    return max(0, _status('VmHWM') - before)


def resident_bytes() -> int:
    """RAM in use, after giving free RAM back to the system; peaks count from here."""
    ctypes.CDLL(None).malloc_trim(0)
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')
    return _status('VmRSS')


def _status(field: str) -> int:
    with open('/proc/self/status') as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) * 1024
