"""Predictions in a file, given to the metrics of a config."""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults

from stmixer_mm.errors import UserError, blame, nearest
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.tube_frame_map_metric import TubeFrameMAPMetric
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.evaluation.metrics.video_map_metric import VideoMAPMetric
from stmixer_mm.evaluation.results.dumps import (
    AGAIN,
    dump_results,
    metric_configs,
)
from stmixer_mm.evaluation.results.rows import (
    COLUMNS,
    RESULT_READERS,
    Results,
    csv_results,
)
from stmixer_mm.files import check_file
from stmixer_mm.plain_pickle import read_plain_pickle
from stmixer_mm.registry import METRICS


def read_results(file: str | Path) -> Results:
    """Read a dump (``.pkl``, ``.pickle``), a csv, or a form of ``RESULT_READERS``."""
    path, file, content = Path(file), str(file), None
    if not path.is_dir():
        remedy = f'give a dump of tools/test.py or a csv of {COLUMNS}'
        check_file(file, subject=file, remedy=remedy)
    if path.suffix in ('.pkl', '.pickle') and not path.is_dir():
        content = read_plain_pickle(file, kind='a dump', remedy=AGAIN)
    for reader in RESULT_READERS:
        if (results := reader(path, content)) is not None:
            return results
    if path.is_dir():
        raise UserError(
            f'{file} is a folder that has no results of a known form; give a dump of '
            f'tools/test.py, a csv of {COLUMNS}, or see docs/evaluation.md.'
        )
    return csv_results(file) if content is None else dump_results(file, content)


def build_metrics(
    cfg: Config, *, split: int | None = None, protocols: Collection[str] = ()
) -> list[BaseMetric]:
    """The metrics of a config's ``test_evaluator``, dumps left out.

    Args:
        cfg: The config.
        split: Split to evaluate, in place of the config's.
        protocols: Names of those to evaluate by, or ``'all'``, a metric for each, in
            place of the config's choices. Tubes are linked as their authors do, where
            that is known.

    Raises:
        UserError: there is none, or one cannot be built or has no splits; or none has
            one of the protocols.
    """
    changes, metrics = {} if split is None else dict(split=split), []
    available = {}
    with blame('test_evaluator of the config cannot be built', 'correct it'):
        for config in metric_configs(cfg, 'test'):
            kind = config['type']
            kind = METRICS.get(kind) if isinstance(kind, str) else kind
            if kind is not None and issubclass(kind, DumpResults):
                continue
            if changes and not issubclass(kind, TubeMetric):
                raise UserError(f'{kind.__name__} has no splits; leave --splits out.')
            choices = getattr(kind, 'protocols', {})
            available |= choices
            chosen = [name for name in choices if {name, 'all'} & {*protocols}]
            for arguments in _by_protocols(kind, chosen) if protocols else [{}]:
                metrics.append(METRICS.build({**config, **changes, **arguments}))
    remedy = f'; use all, or some of {", ".join(available)}.'
    if unknown := {*protocols} - {'all', *available}:
        raise UserError(
            f'No metric in test_evaluator of {cfg.filename} has the protocol '
            f'{min(unknown)!r}{nearest(min(unknown), available) or remedy}'
        )
    if not metrics:
        raise UserError(
            f'{cfg.filename} has no metric in test_evaluator; give it FrameMAPMetric, '
            'TubeFrameMAPMetric or VideoMAPMetric to evaluate a file.'
        )
    return metrics


def _by_protocols(kind: type[DetectionMetric], names: Collection[str]) -> list[dict]:
    """Arguments of a metric for each protocol of its own."""
    arguments = []
    for name in names:
        arguments.append(dict(protocol=name, class_average=None))
        if issubclass(kind, TubeFrameMAPMetric):
            arguments[-1]['frames'] = None
        if issubclass(kind, VideoMAPMetric) and name in LINKINGS:
            arguments[-1]['linking'] = name
    return arguments


def metrics_for(results: Results, metrics: Sequence[BaseMetric]) -> list[BaseMetric]:
    """The metrics that take the results; a note names the others.

    Raises:
        UserError: there is none.
    """
    supported = [
        metric for metric in metrics if isinstance(metric, results.metric_type)
    ]
    if not supported:
        raise UserError(
            f'{results.file} cannot be evaluated by {type(metrics[0]).__name__} of '
            f'test_evaluator; use a {results.metric_type.__name__}.'
        )
    left_out = (type(metric).__name__ for metric in metrics if metric not in supported)
    for name in dict.fromkeys(left_out):
        print(f'note: {name} does not take {results.file}.', file=sys.stderr)
    return supported


def feed(metric: BaseMetric, results: Results) -> None:
    """Give all predictions to a metric.

    Of a file in rows all count, as in the published evaluators, unless the config sets a
    ``score_thr``.

    Raises:
        UserError: a prediction that the metric refuses, with its place.
    """
    if isinstance(metric, DetectionMetric) and metric.score_thr is None:
        metric.score_thr = results.score_thr
    for place, sample in results.samples(metric):
        try:
            with blame('it cannot be evaluated', AGAIN):
                metric.process(None, [sample])
        except UserError as error:
            raise UserError(f'{place}: {error}') from error
