"""Do the main job from end to end: toy videos, training, evaluation, a video.

An interrupted run goes on where it was when it is started again; a finished one is
done anew, with the toy videos that are there.
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
# How long OpenMP's threads wait awake: long waits make a step of two threads six times
# as slow on a machine that does something else, too.
PATIENT = {'GOMP_SPINCOUNT': '10000'}
TOY_CONFIG = 'configs/experiments/stmixer_tiny-denoising_toy.py'


def run(title, tool, *options):
    """Run a tool of this folder; end with its exit status if it fails."""
    print(f'\n[demo] {title}', flush=True)
    command = [sys.executable, str(TOOLS / tool), *map(str, options)]
    code = subprocess.run(command, env={**PATIENT, **os.environ}).returncode
    if code:
        sys.exit(
            f'demo: {tool} ended with status {code} (its message is above): mend that '
            f'and start the same command again.'
        )


def first_video(data):
    """Return the video file of the first line of ``val.csv``."""
    annotations = data / 'val.csv'
    with annotations.open(newline='') as file:
        video_name = next(csv.reader(file))[0]
    return data / 'videos' / video_name


def last_checkpoint(work_dir):
    """Return the checkpoint that mmengine notes as the last, None before the first."""
    note = work_dir / 'last_checkpoint'
    # The folder may have been moved since.
    return work_dir / Path(note.read_text().strip()).name if note.is_file() else None


def overall_score(work_dir):
    """Return (name, value) of the score that the last evaluation in a folder wrote."""
    results = max(work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    scores = json.loads(results.read_text())
    return next(item for item in scores.items() if item[0].endswith('mAP/overall'))


def run_demo(*, config, data, work_dir, toy_options, cfg_options):
    """Run all steps; returns a dict with ``video``, ``metric``, ``score``, ``seconds``."""
    start = time.monotonic()
    summary_file = work_dir / 'summary.json'
    overrides = ['--cfg-options', *cfg_options] if cfg_options else []

    if (data / 'val.csv').is_file():
        print(f'[demo] toy videos: {data} is there already')
    else:
        run('making toy videos', 'make_toy_dataset.py', '--out', data, *toy_options)

    if summary_file.is_file():  # the run before was finished: do not go on with it
        patterns = 'epoch_*.pth', 'best_*.pth', 'last_checkpoint'
        for file in chain.from_iterable(map(work_dir.glob, patterns)):
            file.unlink()
        summary_file.unlink()
    resume = ['--resume'] if last_checkpoint(work_dir) else []
    run(
        'going on with the training' if resume else 'training',
        *('train.py', config, '--work-dir', work_dir, '--no-validate'),
        *(*resume, *overrides),
    )
    checkpoint = last_checkpoint(work_dir)
    evaluation = work_dir / 'test'
    run(
        'evaluating on the val videos',
        *('test.py', config, checkpoint, '--work-dir', evaluation, *overrides),
    )
    metric, score = overall_score(evaluation)
    video = work_dir / 'demo.mp4'
    run(
        'drawing what it finds in a val video',
        *('demo.py', first_video(data), config, checkpoint, '--out', video),
        *overrides,
    )
    summary = dict(
        video=str(video.resolve()),
        checkpoint=str(checkpoint.resolve()),
        metric=metric,
        score=score,
        seconds=round(time.monotonic() - start, 1),
    )
    half = summary_file.with_suffix(f'.{os.getpid()}.part')
    with half.open('x') as file:
        file.write(json.dumps(summary, indent=2) + '\n')
    os.replace(half, summary_file)
    return summary


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--config', default=str(TOOLS.parent / TOY_CONFIG))
    parser.add_argument(
        '--data', type=Path, default=Path('data/toy'), help='folder of the toy videos'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument(
        '--toy-options', type=shlex.split, default='', help='for make_toy_dataset.py'
    )
    parser.add_argument(
        '--cfg-options', type=shlex.split, default='', help='for all other tools'
    )
    args = vars(parser.parse_args(argv))
    try:
        summary = run_demo(**args)
    except KeyboardInterrupt:
        sys.exit('demo: interrupted; the same command goes on.')
    minutes, seconds = divmod(round(summary['seconds']), 60)
    print(
        f'\n[demo] done in {minutes}:{seconds:02d}\n'
        f'  val {summary["metric"]}: {summary["score"]:.3f}\n'
        f'  checkpoint: {summary["checkpoint"]}\n'
        f'  video: {summary["video"]}'
    )


if __name__ == '__main__':
    main()
