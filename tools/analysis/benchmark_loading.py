"""Time and memory of reading annotations: our classes and the host's, in one run.

The annotations are random: in AVA's form with an exclude file, and as tubes. Each
class reads them in a process of its own. Then a worker is forked that takes every
sample once; what it does not share with its parent is its own.
"""

import argparse
import gc
import multiprocessing
import os
import pickle
import random
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from stmixer_mm.checks.options import COUNT, number
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.tube_dataset import TubeDataset
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.evaluation import FrameMAPMetric
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json

import numpy as np
from mmaction.datasets import AVADataset

NUM_VIDEOS = 235  # of AVA's training set
TUBE_VIDEOS, TUBES, TUBE_LENGTH = 3194, 4500, 133  # about those of UCF101-24
COLUMNS = {
    'part': '{}',
    'seconds': '{:.2f}',
    'CPU seconds': '{:.2f}',
    'peak MB': '{:.0f}',
    'kept MB': '{:.0f}',
    'samples': '{}',
    'first sample, ms': '{:.2f}',
    "worker's own MB": '{:.1f}',
}
PARTS = ('KeyframeDataset', 'AVADataset', 'FrameMAPMetric', 'TubeDataset')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--keyframes', type=COUNT, default=50000, help='(default: %(default)s)'
    )
    parser.add_argument(
        '--excluded',
        type=number(int, 0),
        default=2000,
        help='lines of the exclude file (default: %(default)s)',
    )
    parser.add_argument(
        '--tube-share',
        type=number(float, above=0),
        default=1.0,
        help='videos with tubes, as a share of those of UCF101-24 (default: 1)',
    )
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS)
    parser.add_argument('--json', metavar='FILE', help='write the rows to this file')
    return parser.parse_args()


def write_keyframes(folder: Path, num_keyframes: int, num_excluded: int) -> None:
    """``ann.csv``, ``exclude.csv`` and an empty frame folder for each video.

    As in AVA, a keyframe has 3.5 persons on average, and a person two actions.
    """
    rng = random.Random(0)
    keys = [
        (f'video{i % NUM_VIDEOS:07}', 902 + i // NUM_VIDEOS)
        for i in range(num_keyframes)
    ]
    lines = []
    for video, second in sorted(keys):
        for person in range(rng.randint(1, 6)):
            x1, y1 = rng.uniform(0, 0.5), rng.uniform(0, 0.5)
            x2, y2 = rng.uniform(x1, 1), rng.uniform(y1, 1)
            box = f'{x1:.3f},{y1:.3f},{x2:.3f},{y2:.3f}'
            for action in rng.sample(range(1, 81), rng.randint(1, 3)):
                lines.append(f'{video},{second:04},{box},{action},{person}\n')
    (folder / 'ann.csv').write_text(''.join(lines))
    excluded = [f'{video},{second:04}\n' for video, second in keys[:num_excluded]]
    (folder / 'exclude.csv').write_text(''.join(excluded))
    for video, _ in keys[:NUM_VIDEOS]:
        (folder / video).mkdir()


def write_tubes(folder: Path, share: float) -> None:
    """``GT.pkl`` and an empty file for each video."""
    rng = np.random.default_rng(0)
    names = [f'v{i:05}' for i in range(max(1, round(TUBE_VIDEOS * share)))]
    tubes: dict[str, dict[int, list]] = {name: {} for name in names}
    for i in range(max(1, round(TUBES * share))):
        frames = np.arange(1, TUBE_LENGTH + 1)[:, None]
        corners = rng.uniform(0, 150, (TUBE_LENGTH, 2))
        rows = np.hstack([frames, corners, corners + 80]).astype(np.float32)
        tubes[names[i % len(names)]].setdefault(i % len(names) % 24, []).append(rows)
    truth = {
        'labels': [f'label{i}' for i in range(24)],
        'train_videos': [names],
        'test_videos': [names[:1]],
        'nframes': dict.fromkeys(names, TUBE_LENGTH + 40),
        'resolution': dict.fromkeys(names, (240, 320)),
        'gttubes': tubes,
    }
    (folder / 'GT.pkl').write_bytes(pickle.dumps(truth, protocol=2))
    for name in names:
        (folder / f'{name}.avi').touch()


def build(part: str, folder: str) -> object:
    """One of ``PARTS``, reading the annotations of the folder."""
    files = dict(
        ann_file=f'{folder}/ann.csv',
        exclude_file=f'{folder}/exclude.csv',
        num_classes=81,
    )
    frames = dict(
        pipeline=[],
        data_prefix=dict(img=folder),
        use_frames=True,
        timestamp_start=900,
    )
    if part == 'KeyframeDataset':
        return KeyframeDataset(**files, **frames)
    if part == 'AVADataset':
        return AVADataset(**files, **frames, timestamp_end=1800)
    if part == 'FrameMAPMetric':
        return FrameMAPMetric(**files)
    return TubeDataset(f'{folder}/GT.pkl', [], data_prefix=dict(img=folder))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rollup_mb(name: str) -> float:
    """Memory of this process as Linux counts it, such as ``Private_Dirty``."""
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def worker_mb(dataset: object) -> float:
    """What a forked process that takes all samples once does not share, in MB."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        before = rollup_mb('Private_Dirty')
        for index in range(len(dataset)):
            dataset.get_data_info(index)
        sender.send(rollup_mb('Private_Dirty') - before)
        os._exit(0)
    found = receiver.recv()
    os.waitpid(child, 0)
    return found


def measure(part: str, folder: str, warm_up: str) -> dict:
    """Build a part, first from the folder ``warm_up``, to have all modules loaded."""
    build(part, warm_up)
    gc.collect()
    resident = rollup_mb('Rss')
    start, cpu_start = time.perf_counter(), time.process_time()
    built = build(part, folder)
    row = {
        'part': part,
        'seconds': time.perf_counter() - start,
        'CPU seconds': time.process_time() - cpu_start,
        'peak MB': peak_mb() - resident,
    }
    gc.collect()
    row['kept MB'] = rollup_mb('Rss') - resident
    if part.endswith('Dataset'):
        start = time.perf_counter()
        built.get_data_info(0)
        row['first sample, ms'] = 1000 * (time.perf_counter() - start)
        row.update({'samples': len(built), "worker's own MB": worker_mb(built)})
    return row


def apart(function: Callable, *args: object) -> object:
    """Call it in a new process, as freed memory is not always given back."""
    context = multiprocessing.get_context('fork')
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def run(args: argparse.Namespace) -> None:
    if args.excluded >= args.keyframes:
        raise UserError(
            f'--excluded {args.excluded} leaves none of --keyframes {args.keyframes}; '
            'give less.'
        )
    if not Path('/proc/self/smaps_rollup').exists():
        raise UserError('Memory is read from /proc/self/smaps_rollup; run it on Linux.')
    check_json_path(args.json)
    with tempfile.TemporaryDirectory() as root:
        many, few = f'{root}/many', f'{root}/few'
        for folder, num_keyframes, num_excluded, share in (
            (many, args.keyframes, args.excluded, args.tube_share),
            (few, 2, 1, 1e-3),
        ):
            os.mkdir(folder)
            apart(write_keyframes, Path(folder), num_keyframes, num_excluded)
            apart(write_tubes, Path(folder), share)
        rows = [apart(measure, part, many, few) for part in args.parts]
    cells = [
        [
            form.format(row[name]) if name in row else ''
            for name, form in COLUMNS.items()
        ]
        for row in rows
    ]
    print(format_table([list(COLUMNS), *cells]))
    write_json(args.json, rows)


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
