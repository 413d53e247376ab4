"""Predictions in a file, given to the metrics of a config."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.tube_metrics import TubeMetric, VideoMAPMetric
from stmixer_mm.evaluation.results.csv_detections import (
    COLUMNS,
    NO_SCORE,
    CsvDetections,
    RowDetections,
)
from stmixer_mm.evaluation.results.dumps import AGAIN, Dump, check_sample, read_pickle
from stmixer_mm.evaluation.results.frame_detections import FrameDetections
from stmixer_mm.evaluation.results.video_tubes import (
    TubeDetections,
    TubeFolder,
    VideoDetections,
)
from stmixer_mm.files import check_file
from stmixer_mm.registry import METRICS

Results = Dump | RowDetections | TubeDetections


def read_results(file: str | Path) -> Results:
    """Read a folder of tubes, a dump or detections (``.pkl``, ``.pickle``), or a csv."""
    if Path(file).is_dir():
        return TubeFolder(file)
    remedy = f'give a dump of tools/test.py or a csv of {COLUMNS}'
    check_file(file, subject=str(file), remedy=remedy)
    if Path(file).suffix not in ('.pkl', '.pickle'):
        return CsvDetections(file)
    content = read_pickle(file)
    if isinstance(content, Mapping):
        return VideoDetections(file, content)
    first = content[0] if isinstance(content, list) and content else {}
    is_table = isinstance(content, np.ndarray) or not isinstance(first, Mapping)
    return FrameDetections(file, content) if is_table else Dump(file, content)


def metric_configs(cfg: Config, split: str) -> list[dict]:
    """Of an evaluator: one metric, some, or mmengine's ``Evaluator`` of either."""
    metrics = cfg.get(f'{split}_evaluator') or []
    if isinstance(metrics, Mapping):
        metrics = metrics.get('metrics', metrics)
    return [metrics] if isinstance(metrics, Mapping) else list(metrics)


def build_metrics(cfg: Config, *, split: int | None = None) -> list[BaseMetric]:
    """The metrics of a config's ``test_evaluator``, dumps left out.

    Args:
        cfg: The config.
        split: Split to evaluate, for that which the config sets.

    Raises:
        UserError: there is none, or one cannot be built or has no splits.
    """
    with blame('test_evaluator of the config cannot be built', 'correct it'):
        metrics = [_build_metric(one, split) for one in metric_configs(cfg, 'test')]
    metrics = [metric for metric in metrics if not isinstance(metric, DumpResults)]
    if not metrics:
        raise UserError(
            f'{cfg.filename} has no metric in test_evaluator; give it FrameMAPMetric, '
            'TubeFrameMAPMetric or VideoMAPMetric to evaluate a file.'
        )
    return metrics


def _build_metric(config: Mapping, split: int | None) -> BaseMetric:
    kind = config['type']
    kind = METRICS.get(kind) if isinstance(kind, str) else kind
    # What is no metric at all, METRICS.build tells.
    if split is None or kind is None or issubclass(kind, DumpResults):
        return METRICS.build(config)
    if not issubclass(kind, TubeMetric):
        raise UserError(
            f'{kind.__name__} of test_evaluator knows no splits; leave --splits out.'
        )
    return METRICS.build({**config, 'split': split})


def metrics_for(results: Results, metrics: Sequence[BaseMetric]) -> list[BaseMetric]:
    """Of tubes the metrics that take them, if one does; the others are noted."""
    if not isinstance(results, TubeDetections):
        return list(metrics)
    kept = [metric for metric in metrics if isinstance(metric, VideoMAPMetric)]
    results.notes += [
        f'{type(metric).__name__} does not take tubes and is left out.'
        for metric in metrics
        if kept and metric not in kept
    ]
    return kept or list(metrics)


def feed(
    metric: BaseMetric, results: Results, *, last: bool = False, split: bool = False
) -> list[str]:
    """Give all predictions to a metric; returns notes on what does not count.

    Those of a dump are let go of for the ``last`` metric; a metric of others takes
    nothing else. Of a file in rows all count, as in the published evaluators, unless
    the config sets a ``score_thr``. Of one ``split`` of several all must count.

    Raises:
        UserError: a prediction that the metric refuses, with its place.
    """
    if not isinstance(metric, DetectionMetric):
        if not isinstance(results, Dump):
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
    unit = 'videos' if isinstance(results, TubeDetections) else 'keyframes'
    total, effects = 0, {'counts as wrong': [], 'does not count': []}
    for place, sample in results.samples(metric, last=last):
        total += 1
        try:
            with blame('it cannot be evaluated', AGAIN):
                if isinstance(results, Dump):
                    check_sample(sample)
                moment = sample['timestamp'] if unit == 'keyframes' else 1
                key = keyframe_key(sample['video_id'], moment)
                metric.process(None, [sample])
        except UserError as error:
            raise UserError(f'{place}: {error}') from error
        # Of the parts of a dataset each has its own metric: nothing to report.
        if not metric.knows(key) and not metric.is_of_others(key):
            is_wrong = metric.counts_unannotated(key)
            effects['counts as wrong' if is_wrong else 'does not count'].append(
                f'{place}: {key}' if unit == 'keyframes' else place
            )
    notes = [
        f'{places[0]} is not in the ground truth of {type(metric).__name__} and '
        f'{effect} ({len(places)} of {total} predicted {unit} are so).'
        for effect, places in effects.items()
        if places
    ]
    if split and notes:
        raise UserError(f'{notes[0].rstrip(".")}; give the results of this split.')
    return notes


def evaluate_results(
    metrics: Sequence[BaseMetric], results: Results, *, split: bool = False
) -> tuple[dict[str, float], list[str]]:
    """Values of all metrics by name, and notes on what was accepted or left out.

    A dump is used up. ``split`` is as in :func:`feed`.

    Raises:
        UserError: as :func:`feed`, or two metrics give a value of the same name.
    """
    values, notes, metrics = {}, [], metrics_for(results, metrics)
    for metric in metrics:
        notes += feed(metric, results, last=metric is metrics[-1], split=split)
        found = metric.evaluate(len(metric.results))
        if doubles := values.keys() & found.keys():
            raise UserError(
                f'Two metrics of test_evaluator give the value {min(doubles)!r}; set '
                'the prefix of one.'
            )
        values.update(found)
    return values, list(dict.fromkeys(results.notes + notes))


def evaluate_splits(
    cfg: Config, files: Mapping[int, str | Path]
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Values of each split and their mean by name, and notes.

    The mean has those values that all splits have.
    """
    found, notes = {}, []
    metrics = {split: build_metrics(cfg, split=split) for split in files}
    for split, file in files.items():
        values, more = evaluate_results(metrics[split], read_results(file), split=True)
        found[f'split {split}'] = values
        notes += more
    all_values = list(found.values())
    found['mean'] = {
        name: float(np.mean([values[name] for values in all_values]))
        for name in all_values[0]
        if all(name in values for values in all_values)
    }
    return found, notes
