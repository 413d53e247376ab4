"""Detect persons and their actions in a live stream, and show them.

Late frames are left out; a stream that breaks is opened again, until Ctrl-C. A file is
shown at its own pace. Without --page and --json-lines, JSON lines are written to
standard output.
"""

import sys
from contextlib import ExitStack, redirect_stdout
from functools import partial
from typing import Annotated, TextIO

import stmixer_mm.projects.streaming  # noqa: F401
from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.inference import detect_clips
from stmixer_mm.apis.inferencer import NMS_THR, ActionDetInferencer, ModelOptions
from stmixer_mm.apis.tracking import DEFAULT_TRACKER, build_tracker
from stmixer_mm.command_line import (
    NotNegative,
    Overrides,
    Score,
    number,
    overrides,
    run_main,
)
from stmixer_mm.datasets.streams import input_files
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_no_input, check_writable_file
from stmixer_mm.projects.live.alerts import AlertOptions, make_alerts
from stmixer_mm.projects.live.detection import JsonLines, LiveDetection, LiveSource
from stmixer_mm.projects.live.pictures import LEAST_SCORE, LivePictures
from stmixer_mm.projects.tiles.tiles import TileOptions, choose_predictor
from stmixer_mm.registry import Reuse

from mmengine.logging import MMLogger
from torch import nn

LOG_EVERY_S = 10.0


def main(
    source: str,
    *,
    model: str | None = None,
    weights: str | None = None,
    page: Annotated[int | None, number(int, 0, 65535), dict(metavar='PORT')] = None,
    host: str = '127.0.0.1',
    json_lines: Annotated[str | None, dict(metavar='FILE')] = None,
    interval_s: NotNegative = 0.0,
    score_thr: Score = 0.3,
    nms_thr: Score = NMS_THR,
    reuse: Reuse = 'auto',
    device: str | None = None,
    building: ModelOptions,
    settings: Overrides,
    tiling: TileOptions,
    alerting: AlertOptions,
) -> None:
    """
    Args:
        source: Number of a camera, address (rtsp://…, http://…), video file, folder of
            pictures, or - for standard input.
        model: Model of this package (default: stmixer-n_jhmdb), or of the release, by
            its name; a checkpoint with its config in it; or with --weights a config.
        weights: Checkpoint file or URL, or a file written by tools/export.py.
        page: Serve a web page at this port; 0 for any free one.
        host: Address of the page; all but this machine's get a token.
        json_lines: Write a line per keyframe, - for standard output.
        interval_s: Minimum seconds between keyframes.
        score_thr: Leave out actions with lower scores; the page can change it for what
            is shown.
        nms_thr: Of persons whose boxes overlap more, keep the highest-scoring; 1: all.
        reuse: Whether clips share what is computed for each frame: auto, where the
            model can; always, or it is an error; never.
        device: Such as cpu or cuda:0; by default the GPU if there is one.
    """
    alerts, predictor = make_alerts(**alerting), choose_predictor(**tiling)
    if json_lines is None and page is None:
        json_lines = '-'
    purpose, outputs = '--json-lines', {json_lines} - {None, '-'}
    for file in outputs:
        check_writable_file(file, purpose=purpose, inputs=input_files(source))
    frames = LiveSource(source)
    with ExitStack() as stack:
        lines = take_stdout(stack) if json_lines == '-' else json_lines
        inferencer = ActionDetInferencer(
            model, weights, device, cfg_options=overrides(**settings), **building
        )
        check_no_input(outputs, inferencer.input_files, purpose=purpose)
        options = dict(predictor=predictor, nms_thr=nms_thr, reuse=reuse)
        live = make_live(inferencer.model, frames, interval_s, score_thr, **options)
        if lines is not None:
            live.listeners.append(JsonLines(lines, score_thr))
        if page is not None:
            check_memory(inferencer.model)
            stack.enter_context(open_page(live, host, page, score_thr))
        told = dict(source=frames.name, score_thr=score_thr, log=log)
        for listener in alerts(inferencer.model.classes, **told):
            live.listeners.append(listener)
            stack.callback(listener.close)
        watch(live)


def make_live(
    model: nn.Module,
    frames: LiveSource,
    interval_s: float,
    score_thr: float,
    **options,
) -> LiveDetection:
    """Detection in a live source; the options are those of :func:`.detect_clips`."""
    loader = ClipLoader(model.cfg)
    options |= dict(tracker=build_tracker(DEFAULT_TRACKER))
    options |= dict(score_thr=min(score_thr, LEAST_SCORE))  # for what the page may show
    detect = partial(detect_clips, model, loader, **options)
    return LiveDetection(frames, detect, loader.spans, interval_s, log=log)


def take_stdout(stack: ExitStack) -> TextIO:
    """Standard output, to which nothing else is printed until the stack ends."""
    stdout = sys.stdout
    stack.enter_context(redirect_stdout(sys.stderr))
    for handler in MMLogger.get_current_instance().handlers:
        if getattr(handler, 'stream', None) is stdout:
            handler.setStream(sys.stderr)
    return stdout


def check_memory(detector: nn.Module) -> None:
    memory = getattr(detector, 'memory', None)
    if not getattr(memory, 'past_only', True):
        raise UserError(
            f'--page shows no picture for as long as the {memory.window_s:g} s that '
            'the memory waits for; set model.memory.past_only=True by --cfg-options.'
        )


def open_page(live: LiveDetection, host: str, port: int, score_thr: float):
    with blame('--page cannot be served', "pip install 'stmixer_mm[live]'"):
        from stmixer_mm.projects.live.page import LivePage
    page = LivePage(LivePictures(score_thr), live, host, port)
    log(f'page: {page.url}')
    return page


def watch(live: LiveDetection) -> None:
    """Detect until the source ends or the user does."""
    try:
        live.start()
        while not live.wait(LOG_EVERY_S):
            log_figures(live)
    finally:
        live.stop()
        log_figures(live)


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def log_figures(live: LiveDetection) -> None:
    log(', '.join(f'{name} {value}' for name, value in live.figures().items()))


if __name__ == '__main__':
    run_main(main)
