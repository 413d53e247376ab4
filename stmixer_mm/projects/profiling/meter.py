"""Which part of a program a growing number grows in: seconds, FLOPs."""

import functools
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

import torch
from torch import nn

# Ways into a part of a host's model.
_ENTRIES = ('forward', 'loss', 'predict', 'loss_and_predict')


class Meter:
    """Shares what a number gains among named parts, of nested ones the innermost.

    Args:
        read: Returns the number.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._last = read()
        self._open: list[str] = []
        self._gains: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._settle()
        self._open.append(name)
        self._gains.setdefault(name, 0)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def watch(self, owner: object, method: str, name: str) -> None:
        """Take all calls of a method of an object for a part, from now on."""
        call = getattr(owner, method)

        @functools.wraps(call)
        def watched(*args, **kwargs):
            with self.part(name):
                return call(*args, **kwargs)

        setattr(owner, method, watched)

    def take(self) -> dict[str, float]:
        """What each part has gained since the last time, in the order of entry."""
        gains, self._gains = self._gains, {}
        return gains

    def _settle(self) -> None:
        now = self._read()
        if self._open:
            self._gains[self._open[-1]] += now - self._last
        self._last = now


def clock(device: str | torch.device) -> Callable[[], float]:
    """Seconds, read when the device has finished its work."""
    device = torch.device(device)
    if device.type != 'cuda':
        return time.perf_counter

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


def take_turns(
    runs: dict[str, Callable[[], object]], *, turns: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each, one after the other in each turn, after one to warm up."""
    meter, records = Meter(clock(device)), []
    for _ in range(turns + 1):
        for name, run in runs.items():
            with meter.part(name):
                run()
        records.append(meter.take())
    return medians(records[1:])


def watch_children(
    meter: Meter,
    model: nn.Module,
    *,
    names: Mapping[str, str] | None = None,
    prefix: str = '',
) -> None:
    """Watch the children of a model, each as a part.

    Args:
        meter: Gets the parts.
        model: What has the children.
        names: 'child' or 'child.method' → name of the part; the child's by default.
        prefix: Stands before the names.
    """
    names = names or {}
    for child_name, child in model.named_children():
        for method in _ENTRIES:
            if hasattr(child, method):
                name = names.get(child_name, child_name)
                name = names.get(f'{child_name}.{method}', name)
                meter.watch(child, method, prefix + name)


def medians(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median of each key over the records; absent means 0."""
    keys = dict.fromkeys(key for record in records for key in record)
    return {key: median(record.get(key, 0) for record in records) for key in keys}


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
