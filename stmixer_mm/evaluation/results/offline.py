"""Predictions in a file, given to the metrics of a config."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.results.csv_detections import (
    COLUMNS,
    NO_SCORE,
    CsvDetections,
    RowDetections,
)
from stmixer_mm.evaluation.results.dumps import AGAIN, Dump, check_sample, read_pickle
from stmixer_mm.evaluation.results.frame_detections import FrameDetections
from stmixer_mm.files import check_file
from stmixer_mm.registry import METRICS

Results = Dump | RowDetections


def read_results(file: str | Path) -> Results:
    """Read a dump or ``frame_detections`` (``.pkl``, ``.pickle``), or else a csv."""
    remedy = f'give a dump of tools/test.py or a csv of {COLUMNS}'
    check_file(file, subject=str(file), remedy=remedy)
    if Path(file).suffix not in ('.pkl', '.pickle'):
        return CsvDetections(file)
    content = read_pickle(file)
    first = content[0] if isinstance(content, list) and content else {}
    is_table = isinstance(content, np.ndarray) or not isinstance(first, Mapping)
    return FrameDetections(file, content) if is_table else Dump(file, content)


def metric_configs(cfg: Config, split: str) -> list[dict]:
    """Of an evaluator: one metric, some, or mmengine's ``Evaluator`` of either."""
    metrics = cfg.get(f'{split}_evaluator') or []
    if isinstance(metrics, Mapping):
        metrics = metrics.get('metrics', metrics)
    return [metrics] if isinstance(metrics, Mapping) else list(metrics)


def build_metrics(cfg: Config) -> list[BaseMetric]:
    """The metrics of a config's ``test_evaluator``, dumps left out.

    Raises:
        UserError: there is none, or one cannot be built.
    """
    with blame('test_evaluator of the config cannot be built', 'correct it'):
        metrics = [METRICS.build(one) for one in metric_configs(cfg, 'test')]
    metrics = [metric for metric in metrics if not isinstance(metric, DumpResults)]
    if not metrics:
        raise UserError(
            f'{cfg.filename} has no metric in test_evaluator; give it FrameMAPMetric, '
            'TubeFrameMAPMetric or VideoMAPMetric to evaluate a file.'
        )
    return metrics


def feed(metric: BaseMetric, results: Results, *, last: bool = False) -> list[str]:
    """Give all predictions to a metric; returns notes on what does not count.

    Those of a dump are let go of for the ``last`` metric; a metric of others takes
    nothing else. Of a file in rows all count, as in the published evaluators, unless
    the config sets a ``score_thr``.

    Raises:
        UserError: a prediction that the metric refuses, with its place.
    """
    if not isinstance(metric, DetectionMetric):
        if isinstance(results, RowDetections):
            raise UserError(
                f'{type(metric).__name__} of test_evaluator cannot evaluate '
                f'{results.file}; give it a dump, or use a metric of this package.'
            )
        for place, sample in results.samples(metric, last=last):
            with blame(f'{place}: it cannot be evaluated', AGAIN):
                metric.process(None, [sample])
        return []
    if isinstance(results, RowDetections) and metric.score_thr is None:
        metric.score_thr = NO_SCORE
    total, effects = 0, {'counts as wrong': [], 'does not count': []}
    for place, sample in results.samples(metric, last=last):
        total += 1
        try:
            with blame('it cannot be evaluated', AGAIN):
                if isinstance(results, Dump):
                    check_sample(sample)
                key = keyframe_key(sample['video_id'], sample['timestamp'])
                metric.process(None, [sample])
        except UserError as error:
            raise UserError(f'{place}: {error}') from error
        # Of the parts of a dataset each has its own metric: nothing to report.
        if not metric.knows(key) and not metric.is_of_others(key):
            is_wrong = metric.counts_unannotated(key)
            effects['counts as wrong' if is_wrong else 'does not count'].append(
                f'{place}: {key}'
            )
    return [
        f'{places[0]} is not in the ground truth of {type(metric).__name__} and '
        f'{effect} ({len(places)} of {total} predicted keyframes are so).'
        for effect, places in effects.items()
        if places
    ]


def evaluate_results(
    metrics: Sequence[BaseMetric], results: Results
) -> tuple[dict[str, float], list[str]]:
    """Values of all metrics by name, and notes on what was accepted or left out.

    A dump is used up.

    Raises:
        UserError: as :func:`feed`, or two metrics give a value of the same name.
    """
    values, notes = {}, list(results.notes)
    for metric in metrics:
        notes += feed(metric, results, last=metric is metrics[-1])
        found = metric.evaluate(len(metric.results))
        if doubles := values.keys() & found.keys():
            raise UserError(
                f'Two metrics of test_evaluator give the value {min(doubles)!r}; set '
                'the prefix of one.'
            )
        values.update(found)
    return values, list(dict.fromkeys(notes))
