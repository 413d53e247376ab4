"""Detect persons and their actions along a video, and draw them into a copy of it.

What is damaged in the video is left out, named at the end, and makes the exit status 1.
"""

import argparse
from pathlib import Path

import stmixer_mm.projects.export  # noqa: F401
from stmixer_mm.apis.inferencer import (
    ActionDetInferencer,
    add_detection_options,
    stream_options,
)
from stmixer_mm.apis.rendering import VIDEOS
from stmixer_mm.datasets.streams import open_source
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.files import check_writable_file
from stmixer_mm.models.detectors.base import finds_tubelets
from stmixer_mm.structures import result_suffixes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'video', help='video file, folder of pictures, URL, or - for standard input'
    )
    parser.add_argument('config', help='config file, or the name of one in configs/')
    parser.add_argument(
        'checkpoint', help='checkpoint file or URL, or what tools/export.py wrote'
    )
    parser.add_argument(
        '--out', required=True, help='video to write: .mp4, .mov, .mkv or .avi'
    )
    parser.add_argument(
        '--json',
        metavar='FILE',
        help='file for the detections; without --json and --csv, OUT with .json',
    )
    parser.add_argument('--csv', metavar='FILE', help='the same as a table')
    add_detection_options(parser)
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    check_writable_file(args.out, purpose='--out', suffixes=VIDEOS)
    named = {'--json': args.json, '--csv': args.csv}
    tables = {option: path for option, path in named.items() if path}
    tables = tables or {'--json': Path(args.out).with_suffix('.json')}
    for option, path in tables.items():
        check_writable_file(path, purpose=option, suffixes=result_suffixes())
    # A bad video is reported before the model is built.
    open_source(args.video, on_damage=lambda damage: None)
    inferencer = ActionDetInferencer(
        args.config,
        args.checkpoint,
        args.device,
        label_file=args.label_map,
        cfg_options=args.person_thr | (args.cfg_options or {}),
        fast=args.fast,
    )
    results = inferencer.detect(
        args.video,
        vis_file=args.out,
        strict=True,
        **stream_options(args),
    )
    for path in tables.values():
        results.save(path)
    found = results.keyframes
    counts = [len(keyframe.persons) for keyframe in found]
    persons = sum(counts) if results.tubes is None else len(results.tubes)
    frames = 'frames' if finds_tubelets(inferencer.model) else 'keyframes'
    print(f'{persons} persons in {sum(map(bool, counts))} of {len(found)} {frames}')
    print(
        f'video: {args.out}',
        *(f'detections: {path}' for path in tables.values()),
        sep='\n',
    )
    if results.damage:
        parts = (f'{start:.2f} s to {end:.2f} s' for start, end in results.damage)
        raise UserError(
            f'{args.video} is damaged: {", ".join(parts)} cannot be decoded, and '
            'clips that reach into it were left out; fetch it again or re-encode it.'
        )


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
