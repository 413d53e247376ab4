"""Seconds of programs, and the machine that they were measured on."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch


def take_turns(
    runs: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each, one after the other in each turn, after one to warm up."""

    def read_clock() -> float:
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        return clock()

    seconds = {name: [] for name in runs}
    for _ in range(turns + 1):
        for name, run in runs.items():
            start = read_clock()
            run()
            seconds[name].append(read_clock() - start)
    return {name: median(values[1:]) for name, values in seconds.items()}


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
