"""Scores side by side, as JSON and as tables."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.evaluator import BaseMetric

from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.tables import Row
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.projects.diagnosis.scoring import (
    Interval,
    Score,
    join_scores,
    mean_score,
)

NOISE = 'not more than noise'


class MetricScores(NamedTuple):
    """Scores by a metric: of the results, and of those of --against beside them."""

    metric: BaseMetric
    sides: Sequence[Sequence[Score]]  # one or two, of each a score for each split


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
