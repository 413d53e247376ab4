"""Detect persons and their actions in a stream as it comes, and show them.

What comes too late is left out; a stream that breaks is opened again. Ctrl-C ends it,
and all that is written is whole. A file is shown at its own pace. Without --page, --out
and --json-lines the detections are written to standard output.
"""

import argparse
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TextIO

from stmixer_mm.apis.inference import clip_spans, detect_clips, init_detector
from stmixer_mm.apis.inferencer import add_model_options
from stmixer_mm.apis.rendering import VIDEOS, write_pictures
from stmixer_mm.apis.tracking import DEFAULT_TRACKER, TRACKERS, build_tracker
from stmixer_mm.checks.options import (
    SCORE,
    number,
)
from stmixer_mm.engine.speed import speed_up
from stmixer_mm.errors import user_errors
from stmixer_mm.files import check_writable_file
from stmixer_mm.projects.live.detection import (
    Listener,
    LiveDetection,
    LiveResult,
    LiveSource,
)
from stmixer_mm.projects.live.page import LEAST_SCORE, LivePage, list_figures
from stmixer_mm.projects.live.pictures import LivePictures, above
from stmixer_mm.projects.live.uploads import detect_upload, take_turns
from stmixer_mm.records import to_plain

import cv2
import numpy as np

SAY_EVERY_S = 10.0


class JsonLines(Listener):
    """Writes a line for each keyframe, at once."""

    def __init__(self, file: TextIO, score_thr: float) -> None:
        self._file, self._score_thr = file, score_thr

    def on_result(self, result: LiveResult) -> None:
        captured_at = datetime.fromtimestamp(result.captured_at).astimezone()
        height, width = result.size
        line = dict(
            captured_at=captured_at.isoformat(timespec='milliseconds'),
            latency_s=round(result.latency_s, 3),
            width=width,
            height=height,
            **to_plain(above(result.found, self._score_thr)),
        )
        print(json.dumps(line), file=self._file, flush=True)


def frame_size(text: str) -> tuple[int, int]:
    """Of ``--frame-size``: WIDTHxHEIGHT."""
    width, _, height = text.partition('x')
    return number(int, 1, 2**14)(width), number(int, 1, 2**14)(height)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source',
        help='number of a camera, address (rtsp://…, http://…), video file, folder of '
        'pictures, or - for standard input',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help='checkpoint file or URL, or what tools/export.py wrote'
    )
    parser.add_argument(
        '--page',
        type=number(int, 0, 65535),
        metavar='PORT',
        help='serve a web page here; 0 for any that is free',
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='where the page listens (default: %(default)s, this machine alone); any '
        'other gives its address a token',
    )
    parser.add_argument(
        '--max-upload',
        type=number(float, above=0),
        default=200.0,
        metavar='MB',
        help='largest video that the page takes (default: %(default)g)',
    )
    parser.add_argument(
        '--out',
        help='video of what is shown: .mp4, .mov, .mkv or .avi, whole at the end',
    )
    parser.add_argument(
        '--json-lines',
        metavar='FILE',
        help='a line per keyframe, - for standard output',
    )
    parser.add_argument(
        '--interval-s',
        type=number(float, 0),
        default=0.0,
        help='seconds between keyframes, at least (default: %(default)g, as fast as '
        '--budget allows)',
    )
    parser.add_argument(
        '--budget',
        type=number(float, most=1, above=0),
        default=1.0,
        help='share of the time that detection may take; keyframes are as far apart as '
        'those before took (default: %(default)g)',
    )
    parser.add_argument(
        '--score-thr',
        type=SCORE,
        default=0.3,
        help='leave out actions with lower scores (default: %(default)s); the page can '
        'change it for what is shown',
    )
    parser.add_argument(
        '--tracker',
        choices=TRACKERS,
        default=DEFAULT_TRACKER,
        help='what follows persons from keyframe to keyframe (default: %(default)s); '
        'tubelets and track queries do it themselves',
    )
    parser.add_argument(
        '--fps', type=number(float, above=0), help='rate of pictures and raw frames'
    )
    parser.add_argument(
        '--frame-size',
        type=frame_size,
        metavar='WIDTHxHEIGHT',
        help='of raw RGB frames on standard input',
    )
    parser.add_argument('--device', default='cpu', help='as in cpu or cuda:0')
    add_model_options(parser)
    return parser.parse_args()


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def own_stdout() -> Iterator[TextIO]:
    """Standard output for one writer; whatever else is printed goes to stderr."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), 'w') as own:
        os.dup2(2, 1)
        try:
            yield own
        finally:
            sys.stdout.flush()
            os.dup2(own.fileno(), 1)


def show(
    pictures: LivePictures, page: LivePage | None
) -> Iterator[tuple[float, np.ndarray]]:
    """Show pictures on the page and hand them on, in the size of the first."""
    size = None
    for time_s, picture in pictures:
        if page is not None:
            page.show(picture)
        size = size or picture.shape[1::-1]
        yield time_s, cv2.resize(picture, size)


def run(args: argparse.Namespace) -> None:
    if args.out is not None:
        check_writable_file(args.out, purpose='--out', suffixes=VIDEOS)
    if args.json_lines not in (None, '-'):
        check_writable_file(args.json_lines, purpose='--json-lines')
    elif args.page is None and args.out is None:
        args.json_lines = '-'
    source = LiveSource(args.source, fps=args.fps, frame_size=args.frame_size)
    model = init_detector(
        args.config,
        args.checkpoint,
        device=args.device,
        label_map=args.label_map,
        cfg_options=args.person_thr | (args.cfg_options or {}),
    )
    if args.fast:
        speed_up(model)
    turn = threading.Lock()  # to use the model
    pictures, page = LivePictures(args.score_thr), None
    listeners: list[Listener] = [pictures]
    with ExitStack() as stack:
        if args.json_lines == '-':
            listeners.append(
                JsonLines(stack.enter_context(own_stdout()), args.score_thr)
            )
        elif args.json_lines is not None:
            file = stack.enter_context(open(args.json_lines, 'w', encoding='utf-8'))
            listeners.append(JsonLines(file, args.score_thr))
        if args.out is not None:
            stack.enter_context(pictures.watched())
        if args.page is not None:
            page = LivePage(
                pictures,
                lambda: live.figures,
                name=source.name,
                detect=lambda upload: detect_upload(
                    model,
                    upload,
                    turn,
                    score_thr=args.score_thr,
                    nms_thr=args.nms_thr,
                    tracker=build_tracker(args.tracker),
                ),
                host=args.host,
                port=args.page,
                max_upload=int(args.max_upload * 1e6),
                say=say,
            )
            listeners.append(page)
        live = LiveDetection(
            source,
            lambda clips: detect_clips(
                model,
                take_turns(clips, turn),
                score_thr=min(args.score_thr, LEAST_SCORE),
                nms_thr=args.nms_thr,
                tracker=build_tracker(args.tracker),
            ),
            clip_spans(model),
            interval_s=args.interval_s,
            budget=args.budget,
            listeners=listeners,
            say=say,
        )
        if page is not None:
            page.start()
            stack.callback(page.close)
            say(f'page: {page.url}')
        watch(live, pictures, show(pictures, page), args.out)


def watch(
    live: LiveDetection,
    pictures: LivePictures,
    shown: Iterator[tuple[float, np.ndarray]],
    out: str | None,
) -> None:
    """Let it run to its end, or until the user ends it."""

    def say_figures() -> None:
        figures = list_figures(live.figures, pictures.dropped)
        say(', '.join(f'{name} {value}' for name, value in figures))

    with ThreadPoolExecutor(1) as pool:
        if out is None:
            output = pool.submit(deque, shown, maxlen=0)
        else:
            output = pool.submit(write_pictures, shown, out)
        try:
            live.start()
            while not (live.wait(SAY_EVERY_S) or output.done()):
                say_figures()
        finally:
            live.stop()
            pictures.finish()
            wait([output])
            say_figures()
            if not isinstance(sys.exc_info()[1], Exception):
                output.result()


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
