"""Run the main job from end to end: toy videos, training, evaluation, a video.

An interrupted run continues when it is started again; a finished one is repeated with
the toy videos that are there.
"""

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Annotated

from stmixer_mm.command_line import run_main
from stmixer_mm.compat import find_latest_checkpoint
from stmixer_mm.errors import UserError
from stmixer_mm.files import write_json

TOOLS = Path(__file__).resolve().parent
# How long OpenMP's threads wait awake: long waits make a step of two threads six times
# as slow on a machine that is busy with something else, too.
PATIENT = {'GOMP_SPINCOUNT': '10000'}
TOY_CONFIG = TOOLS.parent / 'configs/experiments/stmixer_tiny-denoising_toy.py'
Words = Annotated[tuple[str, ...], dict(type=shlex.split, nargs=None)]


def main(
    *,
    config: str = str(TOY_CONFIG),
    data: Path = Path('data/toy'),
    work_dir: Path = Path('work_dirs/demo'),
    toy_options: Words = (),
    cfg_options: Words = (),
) -> None:
    """Args:
    data: Folder of the toy videos.
    toy_options: For make_toy_dataset.py.
    cfg_options: For all other tools.
    """
    start, summary = time.monotonic(), work_dir / 'summary.json'
    overrides = ['--cfg-options', *cfg_options] if cfg_options else []
    if (data / 'val.csv').is_file():
        print(f'[demo] toy videos: {data} is there already')
    else:
        run('making toy videos', 'make_toy_dataset.py', '--out', data, *toy_options)

    if summary.is_file():  # the run before was finished: do not resume it
        patterns = 'epoch_*.pth', 'best_*.pth', 'last_checkpoint'
        for file in chain.from_iterable(map(work_dir.glob, patterns)):
            file.unlink()
        summary.unlink()
    options = '--work-dir', work_dir, '--no-validate', '--resume', *overrides
    run('training', 'train.py', config, *options)
    checkpoint = find_latest_checkpoint(work_dir)
    options = '--work-dir', work_dir / 'test', *overrides
    run('evaluating on the val videos', 'test.py', config, checkpoint, *options)
    results = max((work_dir / 'test').glob('*/*.json'), key=os.path.getmtime)
    scores = json.loads(results.read_text())
    (metric,) = (name for name in scores if name.endswith('mAP/overall'))
    video = (work_dir / 'demo.mp4').resolve()
    options = config, checkpoint, '--out', video, *overrides
    run('drawing detections in a val video', 'demo.py', first_video(data), *options)

    seconds = round(time.monotonic() - start, 1)
    score = dict(metric=metric, score=scores[metric], seconds=seconds)
    write_json(summary, dict(video=str(video), checkpoint=checkpoint, **score))
    print(
        f'\n[demo] done in {seconds // 60:.0f}:{seconds % 60:02.0f}\n'
        f'  val {metric}: {scores[metric]:.3f}\n'
        f'  checkpoint: {checkpoint}\n'
        f'  video: {video}'
    )


def run(title: str, tool: str, *options: object) -> None:
    """Run a tool of this folder."""
    print(f'\n[demo] {title}', flush=True)
    command = [sys.executable, str(TOOLS / tool), *map(str, options)]
    code = subprocess.run(command, env={**PATIENT, **os.environ}).returncode
    if code:
        raise UserError(
            f'{tool} ended with status {code} (its message is above); correct that and '
            'start the same command again.'
        )


def first_video(data: Path) -> Path:
    """The video of the first line of ``val.csv``."""
    with (data / 'val.csv').open(newline='') as file:
        return data / 'videos' / next(csv.reader(file))[0]


if __name__ == '__main__':
    run_main(main)
