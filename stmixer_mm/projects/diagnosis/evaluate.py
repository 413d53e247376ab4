"""Results in files scored by a config's metrics or by protocols, with intervals."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from mmengine.config import Config
from mmengine.evaluator import BaseMetric

from stmixer_mm.apis.config import check_arguments, config_files, load_config
from stmixer_mm.command_line import CfgOptions, Count, number
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.tables import Row, format_table
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.results.rows import Results
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.diagnosis.offline import (
    build_metrics,
    metrics_for,
    read_results,
)
from stmixer_mm.projects.diagnosis.scoring import (
    Interval,
    Score,
    join_scores,
    mean_score,
    score_pair,
)

NOISE = 'not more than noise'


class MetricScores(NamedTuple):
    """Scores by a metric: of the results, and of those of --against beside them."""

    metric: BaseMetric
    sides: Sequence[Sequence[Score]]  # one or two, of each a score for each split


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


def values_record(scored: Sequence[MetricScores], splits: Sequence[int]) -> dict:
    """Values by all metrics, as JSON has them."""
    sides = [
        [join_scores(by_metric) for by_metric in zip(*by_split, strict=True)]
        for by_split in zip(*(scores.sides for scores in scored), strict=True)
    ]
    means = [mean_score(side) for side in sides]
    if not splits:
        return _record(*means)
    columns = {
        f'split {split}': score.values
        for split, score in zip(splits, sides[0], strict=True)
    }
    return columns | dict(mean=means[0].values) | _record(*means, with_values=False)


def protocol_record(scores: MetricScores, *, is_linked: bool) -> dict[str, Any]:
    """Values by a protocol, as JSON has them; ``is_linked``: of tubes that came linked."""
    metric, means = scores.metric, [mean_score(side) for side in scores.sides]
    thr_names = {
        f'mAP@{thr}': f'{metric.prefix}/{metric.value_name("overall", thr)}'
        for thr in metric.iou_thrs
    }
    return {
        'protocol': metric.protocol_name,
        'of': metric.unit,
        'is': _choices(metric, is_linked),
        **_record(*(mean.select(thr_names) for mean in means)),
    }


def _record(
    score: Score, baseline: Score | None = None, *, with_values: bool = True
) -> dict[str, Any]:
    record = {**score.values} if with_values else {}
    record['intervals'] = score.intervals()
    if baseline:
        difference = score - baseline
        record['against'] = baseline.values
        record['difference'] = difference.values
        record['difference_intervals'] = difference.intervals()
    return record


def _choices(metric: DetectionMetric, is_linked: bool) -> str:
    """A protocol in three words: its frames, of tubes their linking; matching; AP."""
    first = metric.protocol.frames
    if isinstance(metric, VideoMAPMetric):
        names = [
            name for name, linking in LINKINGS.items() if linking == metric.linking
        ]
        first = 'given' if is_linked else [*names, 'own'][0]
    return f'{first} {metric.protocol.matching} {metric.protocol.ap}'


def value_rows(record: Mapping[str, Any], files: Sequence[str]) -> list[Row]:
    """A row for each value of :func:`values_record`, below a heading.

    Args:
        record: The values.
        files: The results, and those beside them.
    """
    if 'difference' in record:
        rows = [['', *files, 'difference', '95 %', '']]
        return rows + [[name, *_beside(record, name)] for name in record['difference']]
    columns = dict(record)
    intervals = columns.pop('intervals')
    if 'mean' not in record:
        columns = dict(value=columns)
    rows = [['', *columns, '95 %']]
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        values = [column.get(name, '-') for column in columns.values()]
        rows.append([name, *values, span(intervals.get(name))])
    return rows


def protocol_rows(records: Sequence[Mapping], files: Sequence[str]) -> list[Row]:
    """A row for each of :func:`protocol_record`, or with others beside it for each of
    its thresholds."""
    if 'difference' in records[0]:
        rows = [['protocol', 'of', 'IoU', *files, 'difference', '95 %', '']]
        for record in records:
            rows += [
                [
                    record['protocol'],
                    record['of'],
                    name.removeprefix('mAP@'),
                    *_beside(record, name),
                ]
                for name in record['difference']
            ]
        return rows
    thr_names = [
        name for record in records for name in record if name.startswith('mAP@')
    ]
    thr_names = [*dict.fromkeys(thr_names)]
    rows = [['protocol', 'of', 'is', *thr_names]]
    for record in records:
        cells = [_cell(record, name) for name in thr_names]
        rows.append([record['protocol'], record['of'], record['is'], *cells])
    return rows


def span(interval: Interval | None) -> str:
    return '-' if interval is None else '[{:.3f}, {:.3f}]'.format(*interval)


def _cell(record: Mapping, name: str) -> str:
    if name not in record:
        return '-'
    interval = record['intervals'].get(name)
    return f'{record[name]:.4f}' + (f' {span(interval)}' if interval else '')


def _beside(record: Mapping, name: str) -> Row:
    """Both values, their difference, its interval and a remark."""
    interval = record['difference_intervals'].get(name)
    is_noise = interval and interval[0] <= 0 <= interval[1]
    values = record.get('mean', record), record['against'], record['difference']
    cells = [side[name] for side in values]
    return [*cells, span(interval), NOISE if is_noise else '']
