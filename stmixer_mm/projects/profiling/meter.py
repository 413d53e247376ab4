"""Seconds of a program and of its parts."""

import functools
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

import torch


class Meter:
    """Time of named parts, of nested ones counted for the innermost.

    Args:
        device: It has finished its work whenever the clock is read.
        clock: Returns seconds; by default those of the wall's.
    """

    def __init__(
        self, device: torch.device, clock: Callable[[], float] | None = None
    ) -> None:
        self._device, self._clock = device, clock or time.perf_counter
        self._last = 0.0
        self._open: list[str] = []
        self._seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._settle()
        self._open.append(name)
        self._seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def watch(self, owner: object, method: str, name: str) -> None:
        """Count all calls of a method, if the object has it, as a part."""
        if not hasattr(owner, method):
            return
        call = getattr(owner, method)

        @functools.wraps(call)
        def watched(*args, **kwargs):
            with self.part(name):
                return call(*args, **kwargs)

        setattr(owner, method, watched)

    def take(self) -> dict[str, float]:
        """Seconds of each part since the last call, in the order of entry."""
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _settle(self) -> None:
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1]] += now - self._last
        self._last = now


def take_turns(
    runs: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    device: torch.device,
    clock: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Median seconds of each, one after the other in each turn, after one to warm up."""
    meter, records = Meter(device, clock), []
    for _ in range(turns + 1):
        for name, run in runs.items():
            with meter.part(name):
                run()
        records.append(meter.take())
    return medians(records[1:])


def medians(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median of each key over the records; absent means 0."""
    keys = dict.fromkeys(key for record in records for key in record)
    return {key: median(record.get(key, 0) for record in records) for key in keys}


def machine(device: str | torch.device) -> dict:
    """Description of the machine, for a report."""
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
