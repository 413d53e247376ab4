"""Tables and pictures of the metrics of a config, in a folder."""

import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from stmixer_mm.apis.config import check_arguments, load_config
from stmixer_mm.command_line import CfgOptions, Count, Score
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.tables import Row, cells, format_table
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.predictions import Detections
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.evaluation.results.offline import (
    build_metrics,
    feed,
    metrics_for,
    read_results,
)
from stmixer_mm.files import check_writable_dir, open_atomically
from stmixer_mm.projects.diagnosis.error_types import (
    box_error_shares,
    format_error_table,
    tube_error_shares,
)
from stmixer_mm.projects.diagnosis.figures import (
    draw_class_aps,
    draw_curves,
    draw_errors,
)
from stmixer_mm.projects.diagnosis.judging import (
    JudgedBoxes,
    WorstKeyframe,
    class_results,
    first_threshold,
    judge_boxes,
    mean_ap,
    worst_keyframes,
)
from stmixer_mm.projects.diagnosis.keyframe_pictures import KeyframePictures


def analyze(
    results: str,
    config: str,
    *,
    out: str,
    num_worst: Count = 10,
    score_thr: Score = 0.3,
    no_keyframes: bool = False,
    cfg_options: CfgOptions = None,
) -> None:
    """Write what is behind the metrics of predictions as tables and pictures.

    Args:
        results: File as tools/evaluate.py takes it.
        config: Config file with test_evaluator.
        out: Folder for tables and pictures.
        num_worst: Classes and keyframes to show.
        score_thr: Lower scores are not drawn, and make no keyframe worse.
        no_keyframes: Draw no keyframes.
    """
    cfg = load_config(config, cfg_options)
    check_arguments(cfg)
    check_writable_dir(out, purpose='folder --out')
    metrics = build_metrics(cfg)
    ours = all(isinstance(metric, DetectionMetric) for metric in metrics)
    if not ours or len({metric.prefix for metric in metrics}) < len(metrics):
        raise UserError(
            f'test_evaluator in {config} cannot be analysed; use FrameMAPMetric, '
            'TubeFrameMAPMetric or VideoMAPMetric, each with another prefix.'
        )
    found = read_results(results)
    for metric in metrics_for(found, metrics):
        for note in feed(metric, found):
            print(f'note: {note}', file=sys.stderr)
        detections = metric.detections(metric.results)
        folder = Path(out, re.sub(r'[^\w-]+', '_', metric.prefix or 'metric'))
        folder.mkdir(parents=True, exist_ok=True)
        _report_classes(metric, detections, folder, num_worst)
        if isinstance(metric, TubeMetric):
            _report_errors(metric, detections, folder)
        if not isinstance(metric, VideoMAPMetric):
            judged = judge_boxes(metric, detections)
            worst = worst_keyframes(judged, num_worst, score_thr=score_thr)
            _report_keyframes(worst, folder)
            if worst and not no_keyframes:
                _draw_keyframes(cfg, judged, worst, folder, score_thr)
    print(f'\nTables and pictures are in {out}.')


def _report_classes(
    metric: DetectionMetric, detections: Detections, folder: Path, num_worst: int
) -> None:
    found, over = class_results(metric, detections), metric.protocol.class_average
    mean = mean_ap(found, over)
    found = sorted((one for one in found if one.num_gts), key=lambda one: one.ap)
    print(
        f'\n{type(metric).__name__}, IoU {first_threshold(metric):g}: mean AP '
        f'{mean:.4f} (class_average={over!r}); the worst of {len(found)} classes with '
        'ground truth:'
    )
    head = ['class', 'ap', 'gts', 'detected', 'right']
    rows = [
        (one.name, one.ap, one.num_gts, len(one.scores), one.right.sum())
        for one in found
    ]
    print(format_table([head, *rows[:num_worst]]))
    _write_table(folder / 'classes.csv', [head, *rows])
    draw_class_aps(found, folder / 'classes.png')
    draw_curves(found, folder, ap_mode=metric.protocol.ap)


def _report_errors(metric: TubeMetric, detections: Detections, folder: Path) -> None:
    of_tubes = isinstance(metric, VideoMAPMetric)
    shares = (tube_error_shares if of_tubes else box_error_shares)(metric, detections)
    print('\nError types, in percent:')
    print(format_error_table(shares))
    draw_errors(shares, folder / 'errors.png')


def _report_keyframes(worst: Sequence[WorstKeyframe], folder: Path) -> None:
    rows = [['video', 'timestamp', 'cost', 'gts', 'found', 'wrong']]
    for key, *numbers in worst:
        video, timestamp = key.rsplit(',', 1)
        rows.append([video, f'{float(timestamp):g}', *numbers])
    print('\nThe worst keyframes:')
    print(format_table(rows))
    _write_table(folder / 'keyframes.csv', rows)


def _draw_keyframes(
    cfg: Config,
    judged: JudgedBoxes,
    worst: Sequence[WorstKeyframe],
    folder: Path,
    score_thr: float,
) -> None:
    """Draw keyframes, their names numbered from the worst on."""
    try:
        pictures = KeyframePictures(cfg, judged, score_thr=score_thr)
    except UserError as error:  # their videos are not needed for anything else
        print(f'note: no keyframe is drawn: {error}', file=sys.stderr)
        return
    for rank, keyframe in enumerate(worst, start=1):
        name = re.sub(r'[^\w.-]+', '_', keyframe.key)
        path = folder / f'keyframe_{rank:02d}_{name}.jpg'
        if not pictures.draw(keyframe.key, path):
            print(f'note: {keyframe.key} is not in the test dataset.', file=sys.stderr)


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    with open_atomically(path, encoding='utf-8', newline='') as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerows(cells(row, 6) for row in rows)
