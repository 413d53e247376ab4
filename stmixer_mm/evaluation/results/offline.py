"""Predictions in a file, a dump or a csv, given to the metrics of a config."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.results.csv_detections import (
    COLUMNS,
    NO_SCORE,
    CsvDetections,
    read_csv,
)
from stmixer_mm.evaluation.results.dumps import AGAIN, Dump, read_dump
from stmixer_mm.files import check_file
from stmixer_mm.registry import METRICS


def read_results(file: str | Path) -> Dump | CsvDetections:
    """Read a dump (``.pkl``, ``.pickle``) or else a csv.

    Raises:
        OSError, ValueError: with file, line and remedy.
    """
    remedy = f'give a dump of tools/test.py or a csv of {COLUMNS}'
    check_file(file, subject=str(file), remedy=remedy)
    if Path(file).suffix in ('.pkl', '.pickle'):
        return Dump(str(file), read_dump(file))
    return read_csv(file)


def build_metrics(cfg: Config) -> list[BaseMetric]:
    """The metrics of a config's ``test_evaluator``, dumps left out.

    Raises:
        ValueError: there is none, or what the metrics raise.
    """
    metric_cfgs = cfg.get('test_evaluator') or []
    if not isinstance(metric_cfgs, list | tuple):
        metric_cfgs = [metric_cfgs]
    metrics = [METRICS.build(metric_cfg) for metric_cfg in metric_cfgs]
    metrics = [metric for metric in metrics if not isinstance(metric, DumpResults)]
    if not metrics:
        raise UserError(
            f'{cfg.filename} has no metric in test_evaluator; add one, such as '
            "dict(type='FrameMAPMetric', ...)."
        )
    return metrics


def feed(
    metric: BaseMetric, results: Dump | CsvDetections, *, last: bool = False
) -> list[str]:
    """Give all predictions to a metric; returns notes on what does not count.

    Those of a dump are let go of for the ``last`` metric.

    Of a csv all lines count, as in the published evaluators, unless the config sets
    a ``score_thr``.

    Raises:
        ValueError: a prediction that the metric refuses, with its place, or none that
            it knows.
    """
    is_ours = isinstance(metric, DetectionMetric)
    if isinstance(results, CsvDetections):
        if not is_ours:
            raise UserError(
                f'{results.file} is a csv, which {type(metric).__name__} cannot '
                'evaluate; use FrameMAPMetric, TubeFrameMAPMetric or VideoMAPMetric as '
                'test_evaluator, or a dump of tools/test.py.'
            )
        if metric.score_thr is None:
            metric.score_thr = NO_SCORE
    frame_key = getattr(metric, 'frame_key', 'timestamp')
    total, unknown = 0, []
    for place, sample in results.samples(metric, last=last):
        total += 1
        try:
            with blame('it cannot be evaluated', AGAIN):
                key = keyframe_key(sample['video_id'], sample[frame_key])
                metric.process(None, [sample])
        except UserError as error:
            raise UserError(f'{place}: {error}') from error
        if is_ours and not metric.knows(key):
            unknown.append((place, key))
    if unknown and len(unknown) == total:
        place, key = unknown[0]
        raise UserError(
            f'{place}: neither {key} nor any other prediction is in the ground truth '
            f'of {type(metric).__name__}; give the config of the tested dataset and '
            'its names of videos.'
        )
    return _notes(metric, unknown, total)


def _notes(
    metric: DetectionMetric, unknown: Sequence[tuple[str, str]], total: int
) -> list[str]:
    """What becomes of places and keys that the ground truth lacks."""
    groups = {'counts as wrong': [], 'does not count': []}
    for place, key in unknown:
        # The parts of a dataset have a metric each, which is no news.
        if not metric.is_of_others(key):
            counts = metric.counts_unannotated(key)
            groups['counts as wrong' if counts else 'does not count'].append(
                f'{place}: {key}'
            )
    return [
        f'{found[0]} is not in the ground truth of {type(metric).__name__} and {effect} '
        f'({len(found)} of {total} predicted keyframes are so).'
        for effect, found in groups.items()
        if found
    ]


def evaluate_results(
    metrics: Sequence[BaseMetric], results: Dump | CsvDetections
) -> tuple[dict[str, float], list[str]]:
    """Values of all metrics by name, and notes on what was accepted or left out.

    A dump is used up.

    Raises:
        ValueError: as :func:`feed`, or two metrics give a value of the same name.
    """
    values, notes = {}, list(results.notes)
    for metric in metrics:
        notes += feed(metric, results, last=metric is metrics[-1])
        for name, value in metric.evaluate(len(metric.results)).items():
            if name in values:
                raise UserError(
                    f'Two metrics of test_evaluator give the value {name!r}; set the '
                    'prefix of one.'
                )
            values[name] = float(value)
    return values, list(dict.fromkeys(notes))
