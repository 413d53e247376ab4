"""Time what a box in every frame of a video costs: by keyframes, and by tubelets.

Decoding to post-processing, as tools/demo.py does it. All weights are random, which is
enough to measure time.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

from stmixer_mm.apis import detect_video, init_detector, video_info
from stmixer_mm.checks.options import COUNT
from stmixer_mm.errors import user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.profiling.memory import peak_bytes
from stmixer_mm.projects.profiling.meter import clock, machine
from stmixer_mm.projects.profiling.models import quieten

import torch

MB = 2**20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('keyframes', help='config file of a detector of keyframes')
    parser.add_argument('tubelets', help='config file of a detector of tubelets')
    parser.add_argument('--video', required=True, help='video file')
    parser.add_argument(
        '--frames', type=COUNT, default=40, help='of the video (default: %(default)s)'
    )
    parser.add_argument(
        '--turns',
        type=COUNT,
        default=3,
        help='of all ways, after one to warm up (default: %(default)s)',
    )
    parser.add_argument('--device', default='cpu', help='as in cpu or cuda:0')
    parser.add_argument('--json', metavar='FILE', help='write the figures to this file')
    return parser.parse_args()


def find_ways(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Ways to say where persons are in every frame."""
    fps = video_info(args.video).fps
    keyframes, tubelets = (
        init_detector(
            config, None, device=args.device, cfg_options={'model.init_cfg': None}
        )
        for config in (args.keyframes, args.tubelets)
    )

    def detect(model: torch.nn.Module, interval: int | None = None) -> None:
        interval_s = interval and interval / fps
        for _ in detect_video(
            model, args.video, interval_s=interval_s, end=args.frames / fps
        ):
            pass

    return {
        'every frame a keyframe': partial(detect, keyframes, 1),
        'every 4th frame a keyframe': partial(detect, keyframes, 4),
        'tubelets': partial(detect, tubelets),
    }


def compare(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Median seconds over the turns, and peak RAM of the first one, by way."""
    ways, read = find_ways(args), clock(args.device)
    device = torch.device(args.device)
    memory = {name: peak_bytes(run, device) / MB for name, run in ways.items()}
    seconds = {name: [] for name in ways}
    for _ in range(args.turns):
        for name, run in ways.items():
            start = read()
            run()
            seconds[name].append(read() - start)
    return {
        name: dict(seconds=median(turns), peak_mb=memory[name])
        for name, turns in seconds.items()
    }


def main() -> None:
    args = parse_args()
    with user_errors():
        quieten()
        check_json_path(args.json)
        found = compare(args)
        rows = [[name, *values.values()] for name, values in found.items()]
        print(format_table([['', 'seconds', 'peak MB'], *rows], digits=2))
        heading = dict(video=args.video, frames=args.frames, turns=args.turns)
        configs = dict(keyframes=args.keyframes, tubelets=args.tubelets)
        figures = {**configs, **heading, **machine(args.device), 'ways': found}
        write_json(args.json, figures)


if __name__ == '__main__':
    main()
