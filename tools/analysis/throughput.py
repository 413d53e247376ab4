"""Clips per second of a model or of its data loading, and where the time goes."""

import argparse
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import chain
from math import ceil
from statistics import fmean
from tempfile import TemporaryDirectory

from stmixer_mm.checks.options import COUNT, add_cfg_options, number
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.engine.speed import STEPS
from stmixer_mm.errors import UserError, blame, user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.profiling.clips import (
    ClipDataset,
    ClipPipeline,
    config_clips,
    extract_frames,
    video_clips,
)
from stmixer_mm.projects.profiling.meter import (
    Meter,
    clock,
    machine,
    medians,
    watch_children,
)
from stmixer_mm.projects.profiling.models import (
    build_model,
    num_classes_of,
    quieten,
    read_config,
)

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn

WARM_UP = 2  # steps
IN_ORDER = 600  # frames
PART_NAMES = {
    'data_preprocessor': 'preprocessing',
    'head.predict': 'post-processing',
    'head.loss': 'losses',
}
LOADING = ('opening', 'decoding', 'augmentation')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file, or one of a package as in mmaction::a/b.py'
    )
    parser.add_argument(
        '--mode',
        choices=['test', 'speed-up', 'train', 'data'],
        default='test',
        help='detection, the same as it gets faster step by step, training, or the '
        'loading of clips alone, from video files and from extracted frames (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--checkpoint', help='checkpoint file or URL; without one, random weights'
    )
    parser.add_argument(
        '--video', help="take clips of this file instead of the config's dataset"
    )
    parser.add_argument(
        '--persons',
        type=number(int, 0, 10_000),
        default=3,
        help='random persons in each clip of --video (default: %(default)s)',
    )
    parser.add_argument(
        '--clips',
        type=COUNT,
        default=10,
        help='clips to measure (default: %(default)s)',
    )
    parser.add_argument(
        '--batch-size',
        type=COUNT,
        help="clips of a step; by default 1, with --mode train the config's",
    )
    parser.add_argument(
        '--workers',
        type=number(int, 0),
        default=0,
        help='processes that load clips beside the model; 0 loads them in turn with it '
        '(default: %(default)s)',
    )
    parser.add_argument('--device', default='cpu', help='as in cpu or cuda:0')
    parser.add_argument('--json', metavar='FILE', help='write the figures to this file')
    add_cfg_options(parser)
    return parser.parse_args()


def split_of(args: argparse.Namespace) -> str:
    return 'test' if args.mode in ('test', 'speed-up') else 'train'


def source_of(args: argparse.Namespace) -> str:
    return 'config' if args.video is None else 'video'


def choose_clips(cfg: Config, args: argparse.Namespace) -> list[dict]:
    """Samples before the pipeline, of --video or of the config's dataset."""
    if args.video is None:
        return config_clips(cfg, split_of(args), args.clips)
    return video_clips(
        args.video, args.clips, persons=args.persons, num_classes=num_classes_of(cfg)
    )


class Steps:
    """Runs a model on the batches of a loader and times each of them."""

    def __init__(self, model: nn.Module, cfg: Config, args: argparse.Namespace) -> None:
        self.model = model
        self.meter = Meter(clock(args.device))
        self.optim_wrapper = None
        if args.mode == 'train':
            model.train()
            if 'optim_wrapper' not in cfg:
                raise UserError(f'{args.config} has no optim_wrapper to train with.')
            self.optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    def watch(self) -> None:
        """Time the parts of a step too, from now on."""
        watch_children(self.meter, self.model, names=PART_NAMES)
        if hasattr(getattr(self.model, 'head', None), 'assigner'):
            self.meter.watch(self.model.head.assigner, 'assign', 'assignment')
        if self.optim_wrapper is not None:
            self.meter.watch(self.optim_wrapper, 'backward', 'backward')
            self.meter.watch(self.optim_wrapper, 'step', 'optimiser')
            self.meter.watch(self.optim_wrapper, 'zero_grad', 'optimiser')

    def run(self, loader: torch.utils.data.DataLoader) -> list[dict]:
        """Seconds of each part of each step, without those that warm up."""
        records, batches = [], iter(loader)
        for _ in range(len(loader)):
            with self.meter.part('other'):
                with self.meter.part('waiting'):
                    batch = next(batches)
                loading = batch.pop('seconds')
                self.step(batch)
            parts = self.meter.take()
            total, other = sum(parts.values()), parts.pop('other')
            waiting = parts.pop('waiting')
            record = {name: sum(loading[name]) for name in LOADING}
            if loader.num_workers:
                record['waiting'] = waiting
            else:
                record['collation'] = waiting - sum(record.values())
            records.append({**record, **parts, 'other': other, 'total': total})
        return records[WARM_UP:]

    def step(self, batch: dict) -> None:
        if self.optim_wrapper is not None:
            self.model.train_step(batch, self.optim_wrapper)
            return
        with torch.no_grad():
            self.model.test_step(batch)


def measure_model(cfg: Config, args: argparse.Namespace) -> dict:
    """Seconds of a step and of its parts, medians over the steps."""
    pipeline = ClipPipeline(cfg, split_of(args), source=source_of(args))
    batch_size = args.batch_size
    if batch_size is None:
        is_train = args.mode == 'train'
        batch_size = cfg.train_dataloader.get('batch_size', 1) if is_train else 1
    num_steps = WARM_UP + -(-args.clips // batch_size)
    clips = ClipDataset(
        choose_clips(cfg, args), pipeline, length=num_steps * batch_size
    )
    loader = clips.loader(batch_size=batch_size, num_workers=args.workers)
    model = build_model(cfg, checkpoint=args.checkpoint, device=args.device)
    steps = Steps(model, cfg, args)
    clips.warm_up()
    # Without the clock between the parts, for which a GPU has to wait.
    undisturbed = medians(steps.run(loader))['total']
    steps.watch()
    parts = medians(steps.run(loader))
    loading = sum(parts[name] for name in LOADING)
    outside = ('total', 'waiting', 'collation', *LOADING)
    working = sum(seconds for name, seconds in parts.items() if name not in outside)
    return dict(
        batch_size=batch_size,
        workers=args.workers,
        clips_per_second=batch_size / undisturbed,
        seconds_per_step=undisturbed,
        loader_clips_per_second_per_core=batch_size / loading,
        model_clips_per_second=batch_size / working,
        parts=parts,
    )


def print_model(figures: dict) -> None:
    parts = dict(figures['parts'])
    total = parts.pop('total')
    rows = [('part', 'seconds', 'share')]
    for name, seconds in parts.items():
        share = f'{seconds / total:.1%}'
        if figures['workers'] and name in LOADING:
            share = 'in workers'
        rows.append((name, f'{seconds:.4f}', share))
    rows.append(('total', f'{total:.4f}', '100.0%'))
    print(format_table(rows))
    print(
        f'{figures["clips_per_second"]:.3f} clips per second, end to end, in steps of '
        f'{figures["batch_size"]}'
    )
    fed, eaten = (
        figures[name]
        for name in ('loader_clips_per_second_per_core', 'model_clips_per_second')
    )
    print(
        f'a core loads {fed:.2f} clips per second, the model takes {eaten:.2f}: '
        f'{ceil(eaten / fed)} core(s) of loading keep it busy'
    )


def measure_speed_up(cfg: Config, args: argparse.Namespace) -> dict:
    """Seconds of a clip with each step of ``speed_up`` added, all in turns.

    The CPU's, of all threads, hold on a busy machine too.
    """
    pipeline = ClipPipeline(cfg, split_of(args), source=source_of(args))
    clips = ClipDataset(choose_clips(cfg, args), pipeline)
    model = build_model(cfg, checkpoint=args.checkpoint, device=args.device)
    models = {'as built': model}
    for name, step in STEPS.items():
        models[f'+ {name}'] = model = deepcopy(model)
        step(model)

    @torch.inference_mode()
    def detect(model: nn.Module, index: int) -> None:
        batch = pseudo_collate([clips[index]])
        del batch['seconds']
        model.test_step(batch)

    clips.warm_up()
    meters = Meter(clock(args.device)), Meter(time.process_time)
    records = []
    for index in range(-1, args.clips):  # one turn to warm up
        for name, model in models.items():
            with meters[0].part(name), meters[1].part(name):
                detect(model, index)
        records.append([meter.take() for meter in meters])
    seconds, cpu_seconds = map(medians, zip(*records[1:], strict=True))
    return dict(seconds=seconds, cpu_seconds=cpu_seconds)


def print_speed_up(figures: dict) -> None:
    kinds = figures['seconds'], figures['cpu_seconds']
    rows = [('', 'seconds per clip', 'ratio', 'CPU seconds', 'ratio')]
    for name in kinds[0]:
        values = (
            (f'{seconds[name]:.3f}', f'{seconds["as built"] / seconds[name]:.2f}')
            for seconds in kinds
        )
        rows.append((name, *chain.from_iterable(values)))
    print(format_table(rows))


def measure_loading(cfg: Config, args: argparse.Namespace) -> dict:
    """Seconds of a clip in the loader, means over the clips."""
    split = split_of(args)
    configured = ClipPipeline(cfg, split)
    infos = choose_clips(cfg, args)
    sources = {}
    if args.video is None:
        sources['as configured'] = infos, configured
    with TemporaryDirectory() as folder:
        if infos[0].get('filename'):
            pipeline = ClipPipeline(cfg, split, source='video')
            sources['video files'] = infos, pipeline
            extracted = extract_frames(infos, pipeline, folder)
            frames = ClipPipeline(cfg, split, source='frames')
            sources['extracted frames'] = extracted, frames
        rows = [
            dict(source=name, **time_loading(ClipDataset(*source), args))
            for name, source in sources.items()
        ]
    figures = dict(workers=args.workers, rows=rows)
    if 'video files' in sources:
        figures.update(count_frames(*sources['video files']))
        figures['seconds_per_frame_in_order'] = time_in_order(infos[0]['filename'])
    return figures


def time_loading(clips: ClipDataset, args: argparse.Namespace) -> dict:
    clips.warm_up()
    loader = clips.loader(num_workers=args.workers)
    start = time.perf_counter()
    seconds = [batch['seconds'] for batch in loader]
    elapsed = time.perf_counter() - start
    parts = {name: fmean(clip[name][0] for clip in seconds) for name in LOADING}
    return dict(
        **parts,
        clips_per_second_per_core=1 / sum(parts.values()),
        clips_per_second=len(clips) / elapsed,
    )


def count_frames(infos: list[dict], pipeline: ClipPipeline) -> dict:
    """Frames that a clip holds, and frames decoded for it, means over the clips."""
    used, decoded = [], []
    for info in infos:
        results = pipeline.open(dict(info))
        key_inds = results['video_reader'].key_inds
        frame_inds = pipeline.decode.transforms[0](results)['frame_inds']
        used.append(len(set(frame_inds.tolist())))
        decoded.append(count_decoded(frame_inds, key_inds))
    return dict(frames_used=fmean(used), frames_decoded=fmean(decoded))


def count_decoded(frame_inds: Iterable[int], key_inds: Sequence[int]) -> int:
    """Frames that are decoded to get some of them from a video that was just opened.

    It goes on from where it is, or starts at the key frame before, if that is nearer.
    """
    position = decoded = 0
    for index in sorted(set(map(int, frame_inds))):
        key = key_inds[bisect_right(key_inds, index) - 1]
        decoded += index + 1 - max(key, position)
        position = index + 1
    return decoded


def time_in_order(video: str) -> float:
    """Seconds of a frame when a video is decoded from its start."""
    reader = open_video(video)
    num_frames = min(len(reader), IN_ORDER)
    start = time.perf_counter()
    for _ in reader.pictures(range(num_frames)):
        pass
    return (time.perf_counter() - start) / num_frames


def print_loading(figures: dict) -> None:
    rows = [('ms per clip', *LOADING, 'clips/s per core', 'clips/s in all')]
    for row in figures['rows']:
        rates = row['clips_per_second_per_core'], row['clips_per_second']
        rows.append(
            (
                row['source'],
                *(f'{1000 * row[name]:.1f}' for name in LOADING),
                *(f'{rate:.1f}' for rate in rates),
            )
        )
    print(format_table(rows))
    print(f'in all: {max(figures["workers"], 1)} process(es)')
    if 'frames_used' in figures:
        used, decoded = figures['frames_used'], figures['frames_decoded']
        in_order = 1000 * figures['seconds_per_frame_in_order']
        print(
            f'video files: {used:.1f} frames used and {decoded:.1f} decoded per clip; '
            f'{in_order:.2f} ms a frame when decoded in order'
        )


def run(args: argparse.Namespace) -> None:
    quieten()
    check_json_path(args.json)
    cfg = read_config(args.config, args.cfg_options)
    with blame(f'{args.config} cannot be measured'):
        set_multi_processing(**(cfg.get('env_cfg') or {}).get('mp_cfg', {}))
        if args.mode == 'data':
            figures = measure_loading(cfg, args)
            print_loading(figures)
        elif args.mode == 'speed-up':
            figures = measure_speed_up(cfg, args)
            print_speed_up(figures)
        else:
            figures = measure_model(cfg, args)
            print_model(figures)
    heading = dict(config=args.config, mode=args.mode, video=args.video)
    write_json(args.json, {**heading, **machine(args.device), **figures})


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
