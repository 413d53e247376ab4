"""Detect persons and their actions in many videos.

Each video gets a JSON file in DIR; started again, the tool skips the videos that have
one. With --ray, workers of a Ray cluster share the videos, and Ray Data writes a data
set. A video that cannot be read is reported on one line; the exit status is then 1.
"""

import argparse
import os

import stmixer_mm.projects.export  # noqa: F401
from stmixer_mm.apis.inferencer import (
    ActionDetInferencer,
    add_detection_options,
    stream_options,
)
from stmixer_mm.checks.options import COUNT
from stmixer_mm.datasets.streams import list_sources
from stmixer_mm.errors import user_errors
from stmixer_mm.projects.many_videos.many_videos import detect_videos, detect_with_ray


def shard(text: str) -> tuple[int, int]:
    """I/N of ``--shard``."""
    number, count = map(int, text.split('/'))
    if not 0 <= number < count:
        raise ValueError
    return number, count


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'videos',
        metavar='LIST',
        help='folder of videos, text file with one in each line, pattern in quotes, '
        'video file or URL',
    )
    parser.add_argument('config', help='config file, or the name of one in configs/')
    parser.add_argument(
        'checkpoint', help='checkpoint file or URL, or what tools/export.py wrote'
    )
    parser.add_argument('--out', required=True, metavar='DIR')
    parser.add_argument(
        '--shard',
        type=shard,
        default=(0, 1),
        metavar='I/N',
        help='the share I, from 0, of N that N processes do',
    )
    parser.add_argument('--ray', nargs='?', const='', metavar='ADDRESS')
    parser.add_argument('--format', choices=('json', 'parquet'), default='json')
    parser.add_argument('--workers', type=COUNT)
    parser.add_argument('--cpus-per-worker', type=COUNT, default=1)
    add_detection_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        model = {
            name: os.path.abspath(path) if path and os.path.exists(path) else path
            for name, path in dict(
                model=args.config, weights=args.checkpoint, label_file=args.label_map
            ).items()
        }

        def build() -> ActionDetInferencer:  # in the workers of Ray, too
            return ActionDetInferencer(
                **model,
                device=args.device,
                cfg_options=args.person_thr | (args.cfg_options or {}),
                fast=args.fast,
                show_progress=False,
            )

        sources = list_sources(args.videos)
        if args.ray is None:
            detect_videos(
                sources, build, args.out, shard=args.shard, **stream_options(args)
            )
        else:
            detect_with_ray(
                sources,
                build,
                args.out,
                form=args.format,
                address=args.ray,
                workers=args.workers,
                cpus_per_worker=args.cpus_per_worker,
                **stream_options(args),
            )


if __name__ == '__main__':
    main()
