"""Clips per second of a model or of its data loading, and where the time goes."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from math import ceil
from typing import Literal

from stmixer_mm.apis.config import config_files
from stmixer_mm.command_line import CfgOptions, Count, run_main
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.profiling.clips import (
    ClipPipeline,
    Shape,
    config_clips,
    random_persons,
    video_clips,
)
from stmixer_mm.projects.profiling.meter import Meter, machine, medians, take_turns
from stmixer_mm.projects.profiling.models import (
    build_model,
    detection,
    quieten,
    read_config,
)

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper

WARM_UP = 2  # steps
CLOCKS = dict(wall=time.perf_counter, cpu=time.process_time)
LOADING = ('decoding', 'augmentation', 'collation')
METHODS = 'forward', 'loss', 'loss_and_match', 'predict', 'loss_and_predict'
PART_NAMES = {'data_preprocessor': 'preprocessing', 'head.predict': 'post-processing'}


def main(
    config: str,
    *,
    mode: Literal['test', 'train', 'data'] = 'test',
    checkpoint: str | None = None,
    video: str | None = None,
    clips: Count = 10,
    batch_size: Count | None = None,
    device: str = 'cpu',
    json: str | None = None,
    cfg_options: CfgOptions = None,
    against: Sequence[str] = (),
    shape: Shape = None,
    clock: Literal['wall', 'cpu'] = 'wall',
) -> None:
    """Clips per second of a model or of its data loading, and where the time goes.

    With --against instead: seconds of a detection in noise with random weights, medians
    of --clips turns.

    Args:
        config: Config file, or one of a package as in mmaction::a/b.py.
        mode: Detection, training, or the loading of training clips alone.
        checkpoint: Checkpoint file or URL; without one, random weights.
        video: Take clips of this file, with random persons, instead of the config's
            dataset.
        clips: Clips to measure.
        batch_size: Clips of a step; by default 1, with --mode train the config's.
        device: As in cpu or cuda:0.
        json: Write the figures to this file.
        against: Other configs, or FILE.py:FUNCTION of one that returns what to call.
        shape: With --against: frames, height and width of the clips of all configs.
        clock: With --against; cpu: seconds of the process, for a busy machine.
    """
    quieten()
    check_json_path(json)
    if against:
        run = partial(detection, shape=shape, device=device, overrides=cfg_options)
        runs = {name: run(name) for name in (config, *against)}
        seconds = compare(runs, clips, device, clock)
        return write_json(json, {**machine(device), clock: seconds})
    cfg, is_train = read_config(config, cfg_options), mode == 'train'
    check_json_path(json, config_files(cfg))
    with blame(f'{config} cannot be measured'):
        split = 'test' if mode == 'test' else 'train'
        pipeline = ClipPipeline(cfg, split, of_videos=video is not None)
        if batch_size is None:
            batch_size = cfg.train_dataloader.get('batch_size', 1) if is_train else 1
        infos = video_clips(video, clips) if video else config_clips(cfg, split, clips)
        persons = random_persons(cfg) if video else {}
        infos = cycle([persons | info for info in infos])
        steps = Steps(pipeline, torch.device(device))
        if mode != 'data':
            steps.add_model(cfg, checkpoint, is_train=is_train)
        count = WARM_UP + ceil(clips / batch_size)
        records = [steps.run([*islice(infos, batch_size)]) for _ in range(count)]
    parts = medians(records[WARM_UP:])
    seconds = sum(parts.values())
    rate = batch_size / seconds
    fed = batch_size / sum(parts[name] for name in LOADING)
    rows = [('part', 'seconds', 'share')]
    rows += [(name, f'{s:.4f}', f'{s / seconds:.1%}') for name, s in parts.items()]
    print(format_table([*rows, ('total', f'{seconds:.4f}', '100.0%')]))
    print(
        f'{rate:.3f} clips per second in steps of {batch_size}; a core loads {fed:.2f}'
    )
    figures = dict(
        machine(device),
        config=config,
        mode=mode,
        video=video,
        batch_size=batch_size,
        clips_per_second=rate,
        loader_clips_per_second_per_core=fed,
        seconds_per_step=seconds,
        parts=dict(parts, total=seconds),
    )
    write_json(json, figures)


def compare(runs: dict[str, Callable], turns: int, device: str, clock: str) -> dict:
    """Median seconds of each in turns, printed with those of the first as a unit."""
    with torch.no_grad():
        options = dict(device=torch.device(device), clock=CLOCKS[clock])
        found = take_turns(runs, turns=turns, **options)
    unit = next(iter(found.values()))
    rows = [(name, f'{s:.4f}', f'{s / unit:.2f}') for name, s in found.items()]
    print(format_table([('', f'{clock} seconds', 'ratio'), *rows]))
    return found


class Steps:
    """Load batches, run a model on them if there is one, and time the parts."""

    def __init__(self, pipeline: ClipPipeline, device: torch.device) -> None:
        self.pipeline, self.device = pipeline, device
        self.meter = Meter(device)
        self.meter.watch(pipeline, 'read', 'decoding')
        self.meter.watch(pipeline, 'augment', 'augmentation')
        self.model = self.optim_wrapper = None

    def add_model(self, cfg: Config, checkpoint: str | None, *, is_train: bool) -> None:
        self.model = build_model(cfg, checkpoint=checkpoint, device=str(self.device))
        for name, child in self.model.named_children():
            for method in METHODS:
                part = PART_NAMES.get(f'{name}.{method}', PART_NAMES.get(name, name))
                self.meter.watch(child, method, part)
        if is_train:
            if 'optim_wrapper' not in cfg:
                raise UserError('The config has no optim_wrapper to train with.')
            self.optim_wrapper = build_optim_wrapper(
                self.model.train(), cfg.optim_wrapper
            )
            for method in ('backward', 'step', 'zero_grad'):
                part = 'backward' if method == 'backward' else 'optimiser'
                self.meter.watch(self.optim_wrapper, method, part)

    def run(self, infos: Sequence[dict]) -> dict[str, float]:
        """Seconds of the parts of a step."""
        with self.meter.part('other'):
            with self.meter.part('collation'):
                batch = pseudo_collate([self.pipeline(info) for info in infos])
            if self.optim_wrapper is not None:
                self.model.train_step(batch, self.optim_wrapper)
            elif self.model is not None:
                with torch.no_grad():
                    self.model.test_step(batch)
        parts = self.meter.take()
        order = dict.fromkeys((*LOADING, *parts))
        order['other'] = order.pop('other')
        return {name: parts[name] for name in order}


if __name__ == '__main__':
    run_main(main)
