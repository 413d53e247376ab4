"""Results in files scored by a config's metrics or by protocols, with intervals."""

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

from mmengine.config import Config

from stmixer_mm.apis.config import check_arguments, config_files, load_config
from stmixer_mm.command_line import CfgOptions, Count, number
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.results.rows import Results
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.diagnosis.comparison import (
    MetricScores,
    protocol_record,
    protocol_rows,
    value_rows,
    values_record,
)
from stmixer_mm.projects.diagnosis.offline import (
    build_metrics,
    metrics_for,
    read_results,
)
from stmixer_mm.projects.diagnosis.scoring import score_pair


def evaluate(
    results: list[str],
    config: str,
    *,
    against: list[str] | None = None,
    splits: list[Count] | None = None,
    protocol: list[str] | None = None,
    draws: Annotated[int, number(int, 0, 100_000)] = 1000,
    json: str | None = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Evaluate predictions in files by the metrics of a config, without a model.

    Args:
        results: Dump of tools/test.py, a csv in the format of AVA
            (video,timestamp,x1,y1,x2,y2,action_id,score), or what published projects
            write; see docs/evaluation.md.
        config: Config file; its test_evaluator evaluates.
        against: Other results of the same videos, to show beside them with the differences
            (of splits one for each).
        splits: Splits of the ground truth that the results are of, one for each, as in
            1 2 3 for JHMDB; their mean is shown too.
        protocol: Names of published evaluators, or all, to score by in one table (of
            splits the mean); see docs/evaluation.md.
        draws: Draws of test videos behind the 95 % intervals, which take some seconds in a
            large data set; 0 leaves the intervals out.
        json: Write the values to this file.
    """
    _check_options(results, against, splits)
    cfg = load_config(config, cfg_options)
    check_json_path(json, config_files(cfg))
    check_arguments(cfg)
    sides = [[*map(read_results, files)] for files in (results, against) if files]
    scored = [*score_results(cfg, sides, splits, protocol or [], draws)]
    drawn = [
        any(score.draws for score in scores.sides[0])
        for scores in scored
        if isinstance(scores.metric, DetectionMetric)
    ]
    if draws and drawn and not any(drawn):
        print(
            f'note: {results[0]} is evaluated in one video, which gives no interval.',
            file=sys.stderr,
        )
    files = ['mean' if splits else side[0].file for side in sides]
    if protocol:
        is_linked = sides[0][0].metric_type is VideoMAPMetric
        record = [protocol_record(scores, is_linked=is_linked) for scores in scored]
        print(format_table(protocol_rows(record, files), left=3))
    else:
        record = values_record(scored, splits or [])
        print(format_table(value_rows(record, files)))
    write_json(json, record)


def _check_options(
    results: list[str], against: list[str] | None, splits: list[int] | None
) -> None:
    if len({*(splits or [1])}) != len(results):
        raise UserError(
            f'There are {len(results)} results; name as many different splits, as in '
            '--splits 1 2 3.'
        )
    if against and len(against) != len(results):
        raise UserError(
            f'--against has {len(against)} results beside {len(results)}; name one for '
            'each.'
        )


def score_results(
    cfg: Config,
    sides: Sequence[Sequence[Results]],
    splits: Sequence[int] | None,
    protocols: Sequence[str],
    draws: int,
) -> Iterator[MetricScores]:
    """Scores of results, and of those beside them, by each metric."""
    pairs = [*zip(*sides, strict=True)]
    metrics = []
    for split, pair in zip(splits or [None], pairs, strict=True):
        of_split = build_metrics(cfg, split=split, protocols=protocols)
        for results in pair:
            of_split = metrics_for(results, of_split)
        metrics.append(of_split)
    for by_split in zip(*metrics, strict=True):
        scores = []
        for seed, (metric, pair) in enumerate(zip(by_split, pairs, strict=True)):
            if isinstance(metric, DetectionMetric):
                metric.logs_classes = not protocols and len(pair) == 1
            scores.append(score_pair(metric, pair, draws=draws, seed=seed))
        yield MetricScores(by_split[0], [*zip(*scores, strict=True)])
