"""What is behind the metrics of predictions in a file, as tables and pictures."""

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from stmixer_mm.checks.config import check_arguments, load_config
from stmixer_mm.checks.options import COUNT, SCORE, add_cfg_options
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.average_precision import first_threshold
from stmixer_mm.evaluation.functional.error_types import format_error_table
from stmixer_mm.evaluation.functional.tables import Row, cells, format_table
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.tube_metrics import TubeMetric
from stmixer_mm.evaluation.results.offline import (
    Results,
    build_metrics,
    feed,
    metrics_for,
    read_results,
)
from stmixer_mm.files import check_writable_dir, open_atomically
from stmixer_mm.projects.diagnosis.figures import (
    draw_class_aps,
    draw_curves,
    draw_errors,
    draw_scores,
)
from stmixer_mm.projects.diagnosis.judging import (
    Keyframe,
    class_results,
    judge_boxes,
    mean_ap,
    worst_keyframes,
)
from stmixer_mm.projects.diagnosis.keyframe_pictures import KeyframePictures

from mmengine.config import Config
from mmengine.evaluator import BaseMetric


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('results', help='a file as tools/evaluate.py takes it')
    parser.add_argument('config', help='config file, with test_evaluator')
    parser.add_argument('--out', required=True, help='folder for tables and pictures')
    parser.add_argument(
        '--num-worst', type=COUNT, default=10, help='classes and keyframes to show'
    )
    parser.add_argument(
        '--score-thr',
        type=SCORE,
        default=0.3,
        help='lower scores are not drawn, and make no keyframe worse',
    )
    parser.add_argument('--no-keyframes', action='store_true', help='draw no keyframes')
    add_cfg_options(parser)
    return parser.parse_args()


def write_table(path: Path, head: Sequence[str], rows: Sequence[Row]) -> None:
    with open_atomically(path, encoding='utf-8', newline='') as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerows([head, *(cells(row, 6) for row in rows)])


def draw_worst(
    folder: Path, worst: Sequence[Keyframe], pictures: KeyframePictures
) -> None:
    """Draw keyframes, their names numbered from the worst on."""
    for rank, keyframe in enumerate(worst, start=1):
        name = re.sub(r'[^\w.-]+', '_', keyframe.key)
        path = folder / f'keyframe_{rank:02d}_{name}.jpg'
        if not pictures.draw(keyframe.key, path):
            print(f'note: {keyframe.key} is not in the test dataset.', file=sys.stderr)


def diagnose(
    cfg: Config,
    metric: DetectionMetric,
    results: Results,
    args: argparse.Namespace,
    folder: Path,
) -> None:
    """Tables and pictures of one metric, into its folder."""
    for note in feed(metric, results):
        print(f'note: {note}', file=sys.stderr)
    detections = metric.detections(metric.results)
    found = class_results(metric, detections)
    mean = mean_ap(found, metric.class_average)
    found = sorted((one for one in found if one.num_gts), key=lambda one: one.ap)
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f'\n{type(metric).__name__}, IoU {first_threshold(metric.iou_thrs):g}: mean AP '
        f'{mean:.4f} (class_average={metric.class_average!r}); the worst of '
        f'{len(found)} classes with ground truth:'
    )
    head = ['class', 'ap', 'gts', 'detected', 'right']
    rows = [
        (one.name, one.ap, one.num_gts, len(one.scores), one.right.sum())
        for one in found
    ]
    print(format_table([head, *rows[: args.num_worst]]))
    write_table(folder / 'classes.csv', head, rows)
    draw_class_aps(found, folder / 'classes.png')
    draw_curves(found, folder, ap_mode=metric.protocol.ap)
    draw_scores(found, folder)
    if isinstance(metric, TubeMetric):
        shares = metric.error_shares(detections)
        print('\nError types, in percent:')
        print(format_error_table(shares))
        draw_errors(shares, folder / 'errors.png')
    if isinstance(metric, VideoMAPMetric):
        return
    judged = judge_boxes(metric, detections)
    worst = worst_keyframes(judged, args.num_worst, score_thr=args.score_thr)
    if not worst:
        return
    head = ['video', 'timestamp', 'cost', 'gts', 'found', 'wrong']
    rows = []
    for key, *numbers in worst:
        video, timestamp = key.rsplit(',', 1)
        rows.append((video, f'{float(timestamp):g}', *numbers))
    print('\nThe worst keyframes:')
    print(format_table([head, *rows]))
    write_table(folder / 'keyframes.csv', head, rows)
    if not args.no_keyframes:
        try:
            pictures = KeyframePictures(cfg, judged, score_thr=args.score_thr)
        except (OSError, ValueError) as error:
            print(f'note: no keyframe is drawn: {error}', file=sys.stderr)
            return
        draw_worst(folder, worst, pictures)


def check_metrics(metrics: Sequence[BaseMetric], config: str) -> None:
    """Refuse what cannot be analysed, and what would overwrite one another."""
    for metric in metrics:
        if not isinstance(metric, DetectionMetric):
            raise UserError(
                f'{type(metric).__name__} of test_evaluator in {config} cannot be '
                'analysed; use FrameMAPMetric, TubeFrameMAPMetric or VideoMAPMetric.'
            )
    if len({metric.prefix for metric in metrics}) < len(metrics):
        raise UserError(
            f'Two metrics of test_evaluator in {config} have the same prefix and would '
            'write to the same folder; set the prefix of one.'
        )


def main() -> None:
    args = parse_args()
    with user_errors():
        cfg = load_config(args.config, args.cfg_options)
        check_arguments(cfg)
        check_writable_dir(args.out, purpose='folder --out')
        metrics = build_metrics(cfg)
        check_metrics(metrics, args.config)
        results = read_results(args.results)
        for metric in metrics_for(results, metrics):
            name = re.sub(r'[^\w-]+', '_', metric.prefix or 'metric')
            diagnose(cfg, metric, results, args, Path(args.out, name))
        for note in results.notes:
            print(f'note: {note}', file=sys.stderr)
    print(f'\nTables and pictures are in {args.out}.')


if __name__ == '__main__':
    main()
