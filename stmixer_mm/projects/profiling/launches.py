"""How often a GPU is given work, and how often the host waits for it.

``python -m stmixer_mm.projects.profiling.launches CONFIG --device cuda``
"""

from collections import Counter
from collections.abc import Callable, Iterable
from copy import deepcopy

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from stmixer_mm.command_line import Count, run_main
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.projects.profiling.clips import Shape, random_clip
from stmixer_mm.projects.profiling.models import build_model, quieten, read_config

WAITS = 'cudaStreamSynchronize', 'cudaEventSynchronize'


class _Operators(TorchDispatchMode):
    """Counts operators that compute something."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **kwargs or {})


def count_launches(run: Callable[[], object], device: torch.device) -> dict[str, int]:
    """Of one call, kernels, waits and copies to the device; of a CPU, operators."""
    if device.type != 'cuda':
        with _Operators() as mode:
            run()
        return dict(operators=mode.count)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as profiler:
        run()
        torch.cuda.synchronize(device)  # of another name than those that are counted
    on_device = torch.autograd.DeviceType.CUDA
    return count_events(
        (event.name, event.device_type == on_device) for event in profiler.events()
    )


def count_events(events: Iterable[tuple[str, bool]]) -> dict[str, int]:
    """Of names in a profile, and whether each ran on the device."""
    counts = Counter()
    for name, on_device in events:
        counts['waits'] += name in WAITS
        if on_device:
            kind = name.partition(' ')[0]
            counts['kernels'] += kind not in ('Memcpy', 'Memset')
            counts['copies'] += name.startswith('Memcpy HtoD')
    return {kind: counts[kind] for kind in ('kernels', 'waits', 'copies')}


def main(
    config: str,
    *,
    device: str = 'cpu',
    clips: list[Count] = (1, 2, 8),
    shape: Shape = None,
) -> None:
    """Count kernels, waits and copies of a training step and of a prediction.

    Args:
        config: Config file.
        device: cuda; a CPU has operators alone.
        clips: Of a batch.
        shape: Frames, height and width of the clips; by default those of the test
            pipeline on frames of 4:5.
    """
    quieten()
    cfg = read_config(config)
    model = build_model(cfg, device=device)
    one = random_clip(cfg, shape=shape)
    rows = []
    for number in clips:
        batch = {name: values * number for name, values in one.items()}

        def step(batch: dict = batch) -> None:
            data = model.data_preprocessor(deepcopy(batch), training=True)
            sum(model(**data, mode='loss').values()).backward()
            model.zero_grad()

        def prediction(batch: dict = batch) -> None:
            with torch.inference_mode():
                model.test_step(deepcopy(batch))

        for run in (step, prediction):
            model.train(run is step)
            run()  # compiles, and fills caches
            counts = count_launches(run, torch.device(device))
            rows.append([run.__name__, number, *counts.values()])
    print(format_table([['of a', 'clips', *counts], *rows]))


if __name__ == '__main__':
    run_main(main)
