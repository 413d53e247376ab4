"""Scores side by side, as tables and as JSON."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.protocols import USERS
from stmixer_mm.evaluation.functional.tables import Row
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.projects.diagnosis.scoring import Interval, Score, mean_score

NOISE = 'not more than noise'


class Comparison(NamedTuple):
    """Scores by a metric, one for each split; those of --against beside them."""

    splits: Sequence[Score]
    others: Sequence[Score]  # as many, or none
    files: Sequence[str]  # of the results, and of those beside them
    is_linked: bool  # whether the results are tubes

    @property
    def score(self) -> Score:
        return mean_score(self.splits)

    @property
    def other(self) -> Score | None:
        return mean_score(self.others) if self.others else None


def span(interval: Interval | None) -> str:
    return '-' if interval is None else '[{:.3f}, {:.3f}]'.format(*interval)


def value_rows(scored: Sequence[Comparison], splits: Sequence[int]) -> list[Row]:
    """A row for each value, below a heading."""
    if scored[0].others:
        rows = [['', *scored[0].files, 'difference', '95 %', '']]
        for one in scored:
            rows += [[name, *cells] for name, cells in _beside(one).items()]
        return rows
    columns = _columns(scored, splits)
    intervals = _intervals([one.score for one in scored])
    rows = [['', *columns, '95 %']]
    for name in dict.fromkeys(chain(*columns.values())):
        values = [column.get(name, '-') for column in columns.values()]
        rows.append([name, *values, span(intervals.get(name))])
    return rows


def protocol_rows(scored: Sequence[Comparison], splits: Sequence[int]) -> list[Row]:
    """A row for each protocol, or with others beside it for each of its thresholds.

    Tubes are in the row of the frames if they are linked as the protocol's authors do.
    """
    if scored[0].others:
        rows = [['protocol', 'of', 'IoU', *scored[0].files, 'difference', '95 %', '']]
        for one in scored:
            name, unit = one.score.metric.protocol_name, one.score.metric.unit
            cells = _beside(one)
            rows += [
                [name, unit, thr, *cells[value]]
                for thr, value in _overall(one.score.metric).items()
            ]
        return rows
    found: list[tuple[str, str, dict[str, str]]] = []
    for one in scored:
        score = one.score
        metric, name = score.metric, score.metric.protocol_name
        kind = 'video' if isinstance(metric, VideoMAPMetric) else 'frame'
        cells = {
            f'{kind} mAP@{thr}': _cell(score, value)
            for thr, value in _overall(metric).items()
        }
        beside = [row for row in found if row[0] == name and not row[2].keys() & cells]
        if beside and (kind == 'frame' or _links_as_named(one)):
            beside[0][2].update(cells)
        else:
            found.append((name, _choices(one), cells))
    values = dict.fromkeys(chain(*(cells for *_, cells in found)))
    rows = [['protocol', 'is', *values, 'used by']]
    for name, choices, cells in found:
        some = [cells.get(value, '-') for value in values]
        rows.append([name, choices, *some, USERS.get(name, '-')])
    return rows


def _links_as_named(one: Comparison) -> bool:
    """Whether tubes are linked as the authors of the protocol do."""
    metric = one.score.metric
    is_own = LINKINGS.get(metric.protocol_name) == metric.linking
    return is_own and not one.is_linked


def _cell(score: Score, name: str) -> str:
    interval = score.interval(name)
    return f'{score.values[name]:.4f}' + (f' {span(interval)}' if interval else '')


def _beside(one: Comparison) -> dict[str, list[str | float]]:
    """Both values, their difference, its interval and a remark, by name."""
    score, other, difference = one.score, one.other, one.score - one.other
    rows = {}
    for name, value in difference.values.items():
        interval = difference.interval(name)
        is_noise = interval and interval[0] <= 0 <= interval[1]
        cells = score.values[name], other.values[name], value, span(interval)
        rows[name] = [*cells, NOISE if is_noise else '']
    return rows


def _columns(
    scored: Sequence[Comparison], splits: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Values of each split, and their means.

    Raises:
        UserError: two metrics give a value of the same name.
    """
    names = [f'split {split}' for split in splits] or ['value']
    every = [[*one.splits, one.score] if splits else one.splits for one in scored]
    names += ['mean'] * bool(splits)
    columns = {}
    for name, column in zip(names, zip(*every, strict=True), strict=True):
        values = [*chain(*(score.values.items() for score in column))]
        columns[name] = dict(values)
        counts = Counter(value for value, _ in values)
        if doubles := [value for value, count in counts.items() if count > 1]:
            raise UserError(
                f'Two metrics of test_evaluator give the value {min(doubles)!r}; set '
                'the prefix of one.'
            )
    return columns


def _intervals(scores: Sequence[Score]) -> dict[str, Interval]:
    return {name: one.interval(name) for one in scores for name in one.draws}


def values_record(
    scored: Sequence[Comparison], splits: Sequence[int]
) -> dict[str, Any]:
    """Values as JSON has them."""
    columns = _columns(scored, splits)
    record = columns if splits else columns['value']
    record['intervals'] = _intervals([one.score for one in scored])
    if scored[0].others:
        others = [one.other for one in scored]
        differences = [one.score - one.other for one in scored]
        for name, scores in ('against', others), ('difference', differences):
            record[name] = dict(chain(*(score.values.items() for score in scores)))
        record['difference_intervals'] = _intervals(differences)
    return record


def _overall(metric: DetectionMetric) -> dict[str, str]:
    """Names of the mean AP by threshold."""
    names = {thr: metric.value_name('overall', thr) for thr in metric.iou_thrs}
    return {thr: f'{metric.prefix}/{name}' for thr, name in names.items()}


def class_values(score: Score) -> dict[str, tuple[float, Interval | None]]:
    """AP and interval of each class with ground truth, at the first threshold."""
    metric, first = score.metric, next(iter(score.metric.iou_thrs))
    names = metric.class_names.values()
    values = {
        name: f'{metric.prefix}/{metric.value_name(name, first)}' for name in names
    }
    return {
        name: (score.values[value], score.interval(value))
        for name, value in values.items()
        if value in score.values
    }


def protocol_record(one: Comparison) -> dict[str, Any]:
    """Values by a protocol, as JSON has them."""
    score, other = one.score, one.other
    metric = score.metric

    def at_thrs(get: Callable[[str], Any]) -> dict[str, Any]:
        return {f'mAP@{thr}': get(name) for thr, name in _overall(metric).items()}

    record = {
        'protocol': metric.protocol_name,
        'of': metric.unit,
        'is': _choices(one),
        **at_thrs(score.values.get),
        'used by': USERS.get(metric.protocol_name, '-'),
        'intervals': at_thrs(score.interval),
        'classes': {
            name: dict(AP=value, interval=interval)
            for name, (value, interval) in class_values(score).items()
        },
    }
    if other:
        difference = score - other
        record['against'] = at_thrs(other.values.get)
        record['difference'] = at_thrs(difference.values.get)
        record['difference_intervals'] = at_thrs(difference.interval)
    return record


def _choices(one: Comparison) -> str:
    """A protocol in three words: its frames, of tubes their linking; matching; AP."""
    metric = one.score.metric
    first = metric.protocol.frames
    if isinstance(metric, VideoMAPMetric):
        names = [name for name, each in LINKINGS.items() if each == metric.linking]
        first = 'given' if one.is_linked else [*names, 'own'][0]
    return f'{first} {metric.protocol.matching} {metric.protocol.ap}'
