"""Show who does what in ten seconds of basketball, by the model of this package.

With --train a small model is trained instead, on nine annotated keyframes of that clip,
or with --toy on toy videos. An interrupted training continues when it is started again;
a finished one starts anew. Where the clip is neither at hand nor can be fetched, the
demo draws a toy video.
"""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from stmixer_mm.command_line import run_main
from stmixer_mm.compat import find_latest_checkpoint
from stmixer_mm.errors import UserError
from stmixer_mm.files import (
    cache_folder,
    download_timeout,
    package_folder,
    sha256_of,
    write_json,
)
from stmixer_mm.structures import VideoDetections

import torch
from tqdm import tqdm

TOOLS = Path(__file__).resolve().parent
CONFIGS = package_folder() / 'configs'
# How long OpenMP's threads wait awake: long waits make a step of two threads six times
# as slow on a machine that is busy with something else, too.
PATIENT = {'GOMP_SPINCOUNT': '10000'}
# Of MMAction2 (Apache-2.0). Its annotation, beside the config, is of this package.
CLIP = 'https://github.com/open-mmlab/mmaction2/raw/v1.2.0/demo/test_video_structuralize.mp4'
SHA256 = 'ed105408e9bf71c202c1ddf08f05ff4cfb2f207a7d811d4d791126c415c00261'
NEXT = """next: stmixer detect YOUR_VIDEO --out results   (source .venv/bin/activate)
next: stmixer live 0 --page 8000                (a camera; pip install -e '.[live]')
next: make demo-train                           (then docs/own_data.md: your own actions)"""
# A line of the log of a training.
STEP = re.compile(
    r'\(train\) +(?:\[(?P<epoch>\d+)\])?\[ *(\d+)/(\d+)\].* loss: (?P<loss>[\d.]+)'
)
# The short form is for a first look.
FEW_VIDEOS = '--train-videos', '300', '--val-videos', '40'
Words = Annotated[tuple[str, ...], dict(type=shlex.split, nargs=None)]


class Job(NamedTuple):
    """Config to train, and video to detect in."""

    config: Path | str
    video: Path
    interval_s: float
    data: Path
    is_clip: bool


def main(
    *,
    clip: Path | None = None,
    train: bool = False,
    toy: Literal['short', 'full'] | None = None,
    config: str | None = None,
    data: Path | None = None,
    work_dir: Path = Path('work_dirs/demo'),
    toy_options: Words = (),
    cfg_options: Words = (),
) -> None:
    """Args:
    clip: The basketball clip, if you have it (MMAction2's
        demo/test_video_structuralize.mp4).
    train: Train on the clip.
    toy: Make toy videos, and train on them for a short or the full time.
    config: Another config for the toy videos.
    data: Folder of the toy videos (data/toy, data/toy_short in the short form).
    toy_options: For make_toy_dataset.py.
    cfg_options: For all other tools.
    """
    start, summary = time.monotonic(), work_dir / 'summary.json'
    video = None if toy else find_clip(clip)
    if not (train or toy):
        show(video or draw_toy(work_dir), work_dir)
        print_time(start)
        print(NEXT)
        return
    if video:
        job = remember_clip(video, work_dir)
    else:
        if toy != 'full':
            toy_options = *FEW_VIDEOS, *toy_options
        data = data or Path('data', 'toy' if toy == 'full' else 'toy_short')
        job = learn_from_toys(data, toy_options, config)
    sections = 'train_dataloader.dataset', 'test_dataloader.dataset', 'test_evaluator'
    data_root = [f'{section}.data_root={job.data}' for section in sections]
    overrides = ['--cfg-options', *data_root, *cfg_options]
    if summary.is_file():  # the run before was finished: do not resume it
        patterns = '*_*.pth', 'last_checkpoint'
        for file in chain.from_iterable(map(work_dir.glob, patterns)):
            file.unlink()
        summary.unlink()
    options = '--work-dir', work_dir, '--no-validate', '--resume', *overrides
    run('training', 'train.py', job.config, *options)
    checkpoint = find_latest_checkpoint(work_dir)
    options = '--work-dir', work_dir / 'test', *overrides
    run('evaluating', 'test.py', job.config, checkpoint, *options)
    results = max((work_dir / 'test').glob('*/*.json'), key=os.path.getmtime)
    scores = json.loads(results.read_text())
    (metric,) = (name for name in scores if name.endswith('mAP/overall'))
    model = '--model', job.config, '--weights', checkpoint, '--overwrite', *overrides
    drawn = show(job.video, work_dir, job.interval_s, model)
    what = 'on the nine keyframes that it learned' if job.is_clip else 'on new videos'
    print(f'  checkpoint: {checkpoint}\n  {metric} ({what}): {scores[metric]:.3f}')
    seconds = print_time(start)
    score = dict(metric=metric, score=scores[metric], seconds=seconds)
    write_json(summary, dict(video=str(drawn), checkpoint=checkpoint, **score))


def show(
    video: Path, work_dir: Path, interval_s: float = 0.5, model: Sequence[object] = ()
) -> Path:
    """Detect in a video, say who does what, and where that is drawn."""
    options = '--out', work_dir, '--interval-s', interval_s, *model
    run('detecting', 'detect.py', video, *options)
    detections = work_dir / video.with_suffix('.json').name
    for line in describe(VideoDetections.load(detections)):
        print(f'  {line}')
    drawn = detections.with_suffix('.mp4').resolve()
    print(f'  video: {drawn}')
    print(f'  timeline: {drawn.with_suffix(".png")}')
    print(f'  detections: {drawn.with_suffix(".json")}')
    return drawn


def draw_toy(work_dir: Path) -> Path:
    """A toy video, for a look at the chain: the model knows no drawings."""
    data = work_dir / 'toy'
    print(
        f'[demo] a toy video instead; for the clip, put it at {cache_folder()} as '
        'basketball.mp4, or name it with --clip'
    )
    if not (data / 'val.csv').is_file():
        options = '--train-videos', 1, '--val-videos', 1
        run('making a toy video', 'make_toy_dataset.py', '--out', data, *options)
    return find_toy(data)


def find_toy(data: Path) -> Path:
    """A toy video to look at."""
    with (data / 'val.csv').open(newline='') as file:
        return data / 'videos' / next(csv.reader(file))[0]


def print_time(start: float) -> float:
    seconds = round(time.monotonic() - start, 1)
    print(f'\n[demo] done in {seconds // 60:.0f}:{seconds % 60:02.0f}')
    return seconds


def find_clip(clip: Path | None) -> Path | None:
    """The clip where it is named or kept, else fetched; None where it cannot be.

    Raises:
        UserError: what is named is another file.
    """
    real = os.environ.get('STMIXER_REAL_DATA')
    named_file = clip or (real and Path(real, 'basketball', 'basketball.mp4'))
    cached_file = cache_folder() / 'basketball.mp4'
    if named_file is None and not cached_file.exists():
        print(f'[demo] fetching {CLIP}', flush=True)
        try:
            cached_file.parent.mkdir(parents=True, exist_ok=True)
            with download_timeout():
                torch.hub.download_url_to_file(
                    CLIP, str(cached_file), SHA256, progress=False
                )
        except (OSError, RuntimeError) as error:
            print(f'[demo] it cannot be fetched ({error})')
            return None
    file = Path(named_file or cached_file)
    if not file.is_file() or sha256_of(file) != SHA256:
        raise UserError(
            f'{file} is not the clip whose keyframes are annotated; fetch {CLIP}, or '
            'leave out --clip.'
        )
    return file


def remember_clip(clip: Path, work_dir: Path) -> Job:
    data = work_dir / 'data'
    data.mkdir(parents=True, exist_ok=True)
    for file in (CONFIGS / 'basketball').glob('*.*[!y]'):  # the annotation
        shutil.copy(file, data)
    video = data / 'basketball.mp4'
    video.unlink(missing_ok=True)
    video.symlink_to(clip.resolve())
    config = CONFIGS / 'basketball' / 'stmixer_tiny_1xb4-4x8x1_basketball.py'
    return Job(config, video, 0.5, data, is_clip=True)


def learn_from_toys(data: Path, options: Words, config: str | None) -> Job:
    if (data / 'val.csv').is_file():
        print(f'[demo] toy videos: {data} is there already')
    else:
        run('making toy videos', 'make_toy_dataset.py', '--out', data, *options)
    config = config or CONFIGS / 'experiments' / 'stmixer_tiny-denoising_toy.py'
    return Job(config, find_toy(data), 0.2, data, is_clip=False)


def run(title: str, tool: str, *options: object) -> None:
    """Run a tool of this folder; of its log only the progress of a training is shown."""
    print(f'\n[demo] {title}', flush=True)
    command = [sys.executable, str(TOOLS / tool), *map(str, options)]
    environment = {**PATIENT, **os.environ}
    if tool == 'train.py':
        code = run_training(command, environment)
    else:
        code = subprocess.run(command, env=environment).returncode
    if code:
        raise UserError(
            f'{tool} ended with status {code} (its message is above); correct that and '
            'start the same command again.'
        )


def run_training(command: list[str], environment: dict[str, str]) -> int:
    """Run a training with a progress bar; print the end of its log if it fails."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    last_lines: deque[str] = deque(maxlen=10)
    with (
        subprocess.Popen(command, env=environment, **pipes) as process,
        tqdm(unit='step') as bar,
    ):
        for line in process.stdout:
            last_lines.append(line)
            if step := STEP.search(line):
                epoch, number, total = (int(group or 1) for group in step.groups()[:3])
                bar.total = None if step['epoch'] else total  # of one epoch alone
                bar.update((epoch - 1) * total + number - bar.n)
                bar.set_postfix_str(f'loss {step["loss"]}')
    if process.returncode:
        print(*last_lines, sep='')
    return process.returncode


def describe(detections: VideoDetections, most: int = 3) -> list[str]:
    """A line for each of the persons that were seen longest."""
    times = {frame.frame_index: frame.time_s for frame in detections.keyframes}
    lines = []
    tubes = sorted(
        detections.tubes, key=lambda tube: tube.first_frame - tube.last_frame
    )
    for tube in tubes[:most]:
        stretches = [
            f'{stretch.action} from {times[stretch.first_frame]:.1f} s'
            for stretch in sorted(tube.actions, key=lambda action: action.first_frame)
        ]
        actions = ', '.join(stretches) or 'none of the known actions'
        lines.append(f'person {tube.id}: {actions}')
    return lines


if __name__ == '__main__':
    run_main(main)
