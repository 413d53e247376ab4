"""Detect persons and their actions in a live stream, and show them.

Late frames are left out; a stream that breaks is opened again. Ctrl-C ends the program
and completes its files. A file is shown at its own pace. Without --page, --out and
--json-lines, JSON lines are written to standard output.
"""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, redirect_stdout
from functools import partial
from typing import Annotated, Literal, TextIO

import stmixer_mm.projects.export  # noqa: F401 - exported files as checkpoints
from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.inference import detect_clips
from stmixer_mm.apis.inferencer import NMS_THR, ActionDetInferencer, ModelOptions
from stmixer_mm.apis.rendering import VIDEOS, write_pictures
from stmixer_mm.apis.tracking import DEFAULT_TRACKER, TRACKERS, build_tracker
from stmixer_mm.command_line import (
    NotNegative,
    Overrides,
    Score,
    number,
    overrides,
    run_main,
)
from stmixer_mm.errors import blame
from stmixer_mm.files import check_writable_file
from stmixer_mm.projects.live.detection import JsonLines, LiveDetection, LiveSource
from stmixer_mm.projects.live.pictures import LEAST_SCORE, LivePictures

import numpy as np

LOG_EVERY_S = 10.0


def main(
    source: str,
    config: str,
    checkpoint: str,
    *,
    page: Annotated[int | None, number(int, 0, 65535), dict(metavar='PORT')] = None,
    host: str = '127.0.0.1',
    out: str | None = None,
    json_lines: Annotated[str | None, dict(metavar='FILE')] = None,
    interval_s: NotNegative = 0.0,
    score_thr: Score = 0.3,
    nms_thr: Score = NMS_THR,
    tracker: Literal[tuple(TRACKERS)] = DEFAULT_TRACKER,
    device: str | None = None,
    model: ModelOptions,
    settings: Overrides,
) -> None:
    """
    Args:
        source: Number of a camera, address (rtsp://…, http://…), video file, folder of
            pictures, or - for standard input.
        config: Config file.
        checkpoint: Checkpoint file or URL, or a file written by tools/export.py.
        page: Serve a web page at this port; 0 for any free one.
        host: Address of the page; all but this machine's get a token.
        out: Video of the pictures shown: .mp4, .mov or .mkv.
        json_lines: Write a line per keyframe, - for standard output.
        interval_s: Minimum seconds between keyframes.
        score_thr: Leave out actions with lower scores; the page can change it for what
            is shown.
        nms_thr: Of persons whose boxes overlap more, keep the highest-scoring; 1: all.
        tracker: Tracker of persons; tubelets and track queries need none.
        device: Such as cpu or cuda:0; by default the GPU if there is one.
    """
    if out is not None:
        check_writable_file(out, purpose='--out', suffixes=VIDEOS)
    if json_lines not in (None, '-'):
        check_writable_file(json_lines, purpose='--json-lines')
    elif page is None and out is None:
        json_lines = '-'
    frames = LiveSource(source)
    with ExitStack() as stack:
        lines = open_lines(json_lines, stack)
        detector = ActionDetInferencer(
            config, checkpoint, device, cfg_options=overrides(**settings), **model
        ).model
        loader = ClipLoader(detector.cfg)
        options = dict(score_thr=min(score_thr, LEAST_SCORE), nms_thr=nms_thr)
        options['tracker'] = build_tracker(tracker)
        detect = partial(detect_clips, detector, loader, **options)
        live = LiveDetection(frames, detect, loader.spans, interval_s, log=log)
        shown = pictures = LivePictures(score_thr)
        live.listeners.append(pictures)
        if lines is not None:
            live.listeners.append(JsonLines(lines, score_thr))
        if page is not None:
            shown = serve(stack, pictures, live, host, page)
        watch(live, pictures, shown, out)


def open_lines(file: str | None, stack: ExitStack) -> TextIO | None:
    """Where JSON lines go; if to standard output, nothing else is printed there."""
    if file is None:
        return None
    if file != '-':
        return stack.enter_context(open(file, 'w', encoding='utf-8'))
    lines = sys.stdout
    stack.enter_context(redirect_stdout(sys.stderr))
    return lines


def serve(
    stack: ExitStack, pictures: LivePictures, live: LiveDetection, host: str, port: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Serve the page; the pictures that it shows."""
    with blame('--page cannot be served', "pip install 'stmixer_mm[live]'"):
        from stmixer_mm.projects.live.page import LivePage
    page = stack.enter_context(LivePage(pictures, live, host, port))
    log(f'page: {page.url}')
    return page.shown()


def watch(
    live: LiveDetection,
    pictures: LivePictures,
    shown: Iterator[tuple[float, np.ndarray]],
    out: str | None,
) -> None:
    """Run until the source ends or the user interrupts."""
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        if out is None:
            output = pool.submit(deque, shown, maxlen=0)
        else:
            stack.enter_context(pictures.watched())
            output = pool.submit(write_pictures, shown, out)
        try:
            live.start()
            while not (live.wait(LOG_EVERY_S) or output.done()):
                log_figures(live, pictures)
        finally:
            live.stop()
            pictures.finish()
            wait([output])
            log_figures(live, pictures)
            if not isinstance(sys.exc_info()[1], Exception):
                output.result()


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def log_figures(live: LiveDetection, pictures: LivePictures) -> None:
    figures = live.figures() | {'frames dropped': pictures.dropped}
    log(', '.join(f'{name} {value}' for name, value in figures.items()))


if __name__ == '__main__':
    run_main(main)
