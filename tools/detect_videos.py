"""Detect persons and their actions in many videos, each once.

Start it again, and it goes on with the videos that have no results in DIR; a bad video
costs a line in the report and makes the exit status 1. One of several processes
(torchrun, srun) does its share of the videos.
"""

import argparse

from stmixer_mm.apis.inferencer import add_detection_options, stream_options
from stmixer_mm.checks.options import COUNT
from stmixer_mm.datasets.streams import list_sources
from stmixer_mm.errors import user_errors
from stmixer_mm.projects.many_videos.many_videos import FORMATS, Job, detect_videos


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
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help='folder for the results, or a place that fsspec knows (s3://bucket/name)',
    )
    parser.add_argument(
        '--format', choices=FORMATS, default='jsonl', help='(default: %(default)s)'
    )
    parser.add_argument(
        '--ray',
        nargs='?',
        const='',
        metavar='ADDRESS',
        help='by workers of this Ray cluster; without ADDRESS of the one that runs '
        'here, or else of this machine alone',
    )
    parser.add_argument(
        '--workers',
        type=COUNT,
        help='with --ray, how many at most (default: one for each GPU; without GPUs, '
        'as many as have cores)',
    )
    parser.add_argument(
        '--cpus-per-worker',
        type=COUNT,
        default=1,
        help='with --ray, cores of each worker (default: %(default)s)',
    )
    add_detection_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        job = Job(
            model=args.config,
            weights=args.checkpoint,
            out=args.out,
            form=args.format,
            label_file=args.label_map,
            cfg_options=args.person_thr | (args.cfg_options or {}),
            fast=args.fast,
            options=stream_options(args),
        )
        detect_videos(
            list_sources(args.videos),
            job,
            device=args.device,
            ray_address=args.ray,
            workers=args.workers,
            cpus_per_worker=args.cpus_per_worker,
        )


if __name__ == '__main__':
    main()
