"""Seconds of a detection in a clip of noise, with random weights, in turns with others."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Literal

from stmixer_mm.command_line import CfgOptions, Count, run_main
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.profiling.clips import Shape
from stmixer_mm.projects.profiling.meter import machine, take_turns
from stmixer_mm.projects.profiling.models import detection, quieten

import torch

CLOCKS = dict(wall=time.perf_counter, cpu=time.process_time)


def main(
    config: str,
    *,
    against: Sequence[str] = (),
    shape: Shape = None,
    turns: Count = 10,
    clock: Literal['wall', 'cpu'] = 'wall',
    device: str = 'cpu',
    json: str | None = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Seconds of a detection in a clip of noise, with random weights: medians of turns.

    Args:
        config: Config file, or one of a package as in mmaction::a/b.py.
        against: Other configs, or FILE.py:FUNCTION of one that returns what to call.
        shape: Frames, height and width of the clips; by default those of the test
            pipeline on frames of 4:5.
        turns: Of all, one after the other.
        clock: cpu: seconds of the process, for a busy machine.
        device: As in cpu or cuda:0.
        json: Write the figures to this file.
    """
    quieten()
    check_json_path(json)
    run = partial(detection, shape=shape, device=device, overrides=cfg_options)
    runs = {name: run(name) for name in (config, *against)}
    options = dict(turns=turns, device=torch.device(device), clock=CLOCKS[clock])
    with torch.no_grad():
        seconds = take_turns(runs, **options)
    unit = seconds[config]
    rows = [(name, f'{s:.4f}', f'{s / unit:.2f}') for name, s in seconds.items()]
    print(format_table([('', f'{clock} seconds', 'ratio'), *rows]))
    write_json(json, {**machine(device), clock: seconds})


if __name__ == '__main__':
    run_main(main)
