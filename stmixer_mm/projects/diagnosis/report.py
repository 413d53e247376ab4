"""Tables and pictures of the metrics of a config, in a folder."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stmixer_mm.apis.config import check_arguments, load_config
from stmixer_mm.command_line import CfgOptions, Count, Score
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.average_precision import by_score
from stmixer_mm.evaluation.functional.tables import Row, cells, format_table
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric, Matched
from stmixer_mm.evaluation.metrics.predictions import Detections
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.files import check_own, check_writable_dir, open_atomically
from stmixer_mm.projects.diagnosis.error_types import (
    error_rows,
    error_shares,
    first_threshold,
)
from stmixer_mm.projects.diagnosis.keyframes import (
    draw_keyframes,
    keyframe_rows,
    rate_keyframes,
)
from stmixer_mm.projects.diagnosis.offline import (
    build_metrics,
    feed,
    metrics_for,
    read_results,
)


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
    are_known = all(isinstance(metric, DetectionMetric) for metric in metrics)
    if not are_known or len({metric.prefix for metric in metrics}) < len(metrics):
        raise UserError(
            f'test_evaluator in {config} cannot be analysed; use FrameMAPMetric, '
            'TubeFrameMAPMetric or VideoMAPMetric, each with another prefix.'
        )
    predictions = read_results(results)
    for metric in metrics_for(predictions, metrics):
        feed(metric, predictions)
        folder = Path(out, re.sub(r'[^\w-]+', '_', metric.prefix or 'metric'))
        folder.mkdir(parents=True, exist_ok=True)
        detections = metric.detections(metric.results)
        _report_classes(metric, detections, folder, number=num_worst)
        if not isinstance(metric, VideoMAPMetric):
            keyframes = rate_keyframes(metric, detections, score_thr=score_thr)
            worst = [
                keyframe for keyframe in keyframes[:num_worst] if keyframe.cost > 0
            ]
            _report('Worst keyframes', keyframe_rows(worst), folder / 'keyframes.csv')
            if worst and not no_keyframes:
                draw_keyframes(cfg, worst, folder)
    print(f'\nTables and pictures are in {out}.')


def _report_classes(
    metric: DetectionMetric, detections: Detections, folder: Path, *, number: int
) -> None:
    """AP and counts of the classes, of tubes error types, too."""
    rows = class_rows(metric, metric.match_classes(detections))
    title = f'{type(metric).__name__}, IoU {first_threshold(metric):g}: worst classes'
    _report(title, rows, folder / 'classes.csv', number=number)
    if isinstance(metric, TubeMetric):
        rows = error_rows(error_shares(metric, detections))
        _report('Error types', rows, folder / 'errors.csv')


def class_rows(metric: DetectionMetric, matched: Mapping[int, Matched]) -> list[Row]:
    """A table: the names, a row for each class with ground truth, the worst first.

    Args:
        metric: Whose first threshold counts.
        matched: From its ``match_classes``.
    """
    thr, rows = first_threshold(metric), []
    for column, name in metric.class_names.items():
        matches = matched[column]
        if matches.num_gts:
            right = metric.right(matches, thr)[by_score(matches.scores)]
            ap = metric.average_precision(right, matches.num_gts)
            rows.append([name, ap, matches.num_gts, len(right), int(right.sum())])
    rows.sort(key=lambda row: row[1])
    return [['name', 'ap', 'gts', 'detected', 'right'], *rows]


def _report(
    title: str, rows: Sequence[Row], path: Path, *, number: int | None = None
) -> None:
    """Print a table, or so many of its rows, and write all of it."""
    check_own(path, ','.join(cells(rows[0], 6)))
    print(f'\n{title}:')
    print(format_table(rows[: number and number + 1]))
    with open_atomically(path, encoding='utf-8', newline='') as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerows(cells(row, 6) for row in rows)
