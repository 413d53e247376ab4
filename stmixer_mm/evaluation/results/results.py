"""Predictions in a file, a dump or a csv, given to the metrics of a config."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.frame_map_metric import FrameMAPMetric
from stmixer_mm.evaluation.metrics.predictions import ConfiguredMetric
from stmixer_mm.evaluation.metrics.tube_metrics import (
    TubeFrameMAPMetric,
    VideoMAPMetric,
)
from stmixer_mm.evaluation.results.csv_detections import (
    COLUMNS,
    NO_SCORE,
    CsvDetections,
    read_csv,
)
from stmixer_mm.evaluation.results.dumps import Dump, read_dump
from stmixer_mm.files import check_file
from stmixer_mm.registry import METRICS

OwnMetric = FrameMAPMetric | TubeFrameMAPMetric | VideoMAPMetric
# Seconds or frames; every whole number below has its own float.
LAST_TIMESTAMP = 2**53


def read_results(file: str | Path) -> Dump | CsvDetections:
    """Read a dump (``.pkl``, ``.pickle``) or else a csv.

    Accepted on purpose in a csv: lines in any order, repeated lines, line ends of any
    system, a byte-order mark, boxes that leave the frame by up to its size or have no
    area, and action ids that are not evaluated.

    Raises:
        OSError, ValueError: with file, line and remedy.
    """
    path = Path(file)
    check_file(
        path,
        subject=str(file),
        remedy=f'give a dump of tools/test.py or a csv of {COLUMNS}',
    )
    if path.suffix in ('.pkl', '.pickle'):
        return Dump(str(file), read_dump(path))
    return read_csv(path)


def build_metrics(cfg: Config) -> list[ConfiguredMetric]:
    """The metrics of a config's ``test_evaluator``, dumps left out.

    Raises:
        ValueError: there is none, or what the metrics raise.
    """
    metric_cfgs = cfg.get('test_evaluator') or []
    if not isinstance(metric_cfgs, list | tuple):
        metric_cfgs = [metric_cfgs]
    found = []
    for metric_cfg in metric_cfgs:
        metric = METRICS.build(metric_cfg)
        if isinstance(metric, DumpResults):
            continue
        num_classes, columns = None, {}
        if isinstance(metric, OwnMetric):
            num_classes = metric.num_classes
            columns = {action: n for n, action in enumerate(metric.action_ids, start=1)}
        has_score_thr = 'score_thr' in metric_cfg
        found.append(ConfiguredMetric(metric, num_classes, columns, has_score_thr))
    if not found:
        raise UserError(
            f'{cfg.filename} has no metric in test_evaluator; add one, such as '
            "dict(type='FrameMAPMetric', ...)."
        )
    return found


def feed(
    configured: ConfiguredMetric, results: Dump | CsvDetections, *, last: bool = False
) -> list[str]:
    """Give all predictions to a metric; returns notes on what does not count.

    Those of a dump are let go of for the ``last`` metric.

    Of a csv all lines count, as in the published evaluators, unless the config sets
    a ``score_thr``: the metric's default is for models, which score every class.

    Raises:
        ValueError: a prediction that the metric refuses, with its place, or none that
            it knows.
    """
    metric = configured.metric
    if isinstance(results, CsvDetections) and not configured.has_score_thr:
        metric.score_thr = NO_SCORE
    total, unknown = 0, []
    for place, sample in results.samples(configured, last=last):
        total += 1
        key = sample_key(metric, sample, place)
        if not _is_known(metric, sample, key):
            unknown.append((place, key))
        try:
            metric.process(None, [sample])
        except ValueError as error:
            raise UserError(f'{place}: {error}') from error
    if not unknown:
        return []
    if len(unknown) == total:
        place, key = unknown[0]
        raise UserError(
            f'{place}: neither {key} nor any other prediction is in the ground truth '
            f'of {type(metric).__name__}; give the config of the tested dataset and '
            'its names of videos.'
        )
    if isinstance(metric, FrameMAPMetric):
        # The parts of a dataset, each with its own metric: nothing to tell.
        unknown = [item for item in unknown if not metric.is_of_others(item[1])]
    wrong = [item for item in unknown if _counts(metric, item[1])]
    left_out = [item for item in unknown if not _counts(metric, item[1])]
    return [
        f'{group[0][0]}: {group[0][1]} is not in the ground truth of '
        f'{type(metric).__name__} and {effect} ({len(group)} of {total} predicted '
        'keyframes are so).'
        for group, effect in ((wrong, 'counts as wrong'), (left_out, 'does not count'))
        if group
    ]


def sample_key(metric: BaseMetric, sample: dict, place: str) -> str:
    """The keyframe of a sample; ``ValueError`` if it names none."""
    entry = getattr(metric, 'frame_key', 'timestamp')
    frame = sample.get(entry)
    is_number = isinstance(frame, int | float | np.number)
    if not is_number or not 0 <= frame < LAST_TIMESTAMP:
        shown = str(frame) if is_number else repr(frame)
        raise UserError(
            f'{place}: it has {entry}={shown[:40]}, which is no number of seconds or '
            'of a frame; dump the results of a dataset of this package, or correct '
            'frame_key in test_evaluator.'
        )
    return keyframe_key(sample['video_id'], frame)


def evaluate_results(
    metrics: Sequence[ConfiguredMetric], results: Dump | CsvDetections
) -> tuple[dict[str, float], list[str]]:
    """Values of all metrics by name, and notes on what was accepted or left out.

    A dump is used up.

    Raises:
        ValueError: as :func:`feed`, or two metrics give a value of the same name.
    """
    values, notes = {}, list(results.notes)
    for configured in metrics:
        notes += feed(configured, results, last=configured is metrics[-1])
        metric = configured.metric
        found = metric.evaluate(len(metric.results))
        double = next((name for name in found if name in values), None)
        if double is not None:
            raise UserError(
                f'Two metrics of test_evaluator give the value {double!r}; set the '
                'prefix of one.'
            )
        values.update((name, float(value)) for name, value in found.items())
    return values, list(dict.fromkeys(notes))


def _is_known(metric: BaseMetric, sample: dict, key: str) -> bool:
    if isinstance(metric, FrameMAPMetric):
        return key in metric.frame_numbers
    if isinstance(metric, TubeFrameMAPMetric | VideoMAPMetric):
        return sample['video_id'] in metric.video_numbers
    return True


def _counts(metric: BaseMetric, unknown_key: str) -> bool:
    return isinstance(metric, OwnMetric) and metric.counts_unannotated(unknown_key)
