"""Scores side by side, as tables and as JSON."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.tables import Row
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.projects.diagnosis.scoring import Interval, Score, mean_score

NOISE = 'not more than noise'
# Whose code scores by a protocol.
USERS = dict(
    act='ACT, MultiSports (evaluate.py)',
    moc='MOC',
    multisports='MultiSports, mmaction2',
    road_python='ROAD, in Python',
    road_matlab='ROAD, in MATLAB',
    road='ROAD, in MATLAB',
    retina='3D-RetinaNet',
    yowo='YOWO',
    yowov2='YOWOv2',
    yowov3='YOWOv3',
    yowoformer='YOWOFormer',
    tuber='TubeR',
    openmixer='OpenMixer',
    ava='PySlowFast, AlphAction',
    ava2020='ActivityNet',
    mmaction2='mmaction2',
)


class Comparison(NamedTuple):
    """Scores by a metric, one for each split; those of --against beside them."""

    splits: Sequence[Score]
    baselines: Sequence[Score]  # as many, or none
    files: Sequence[str]  # of the results, and of those beside them
    is_linked: bool  # whether the results are tubes

    @property
    def score(self) -> Score:
        return mean_score(self.splits)

    @property
    def baseline(self) -> Score | None:
        return mean_score(self.baselines) if self.baselines else None


def span(interval: Interval | None) -> str:
    return '-' if interval is None else '[{:.3f}, {:.3f}]'.format(*interval)


def value_rows(comparisons: Sequence[Comparison], splits: Sequence[int]) -> list[Row]:
    """A row for each value, below a heading."""
    if comparisons[0].baselines:
        rows = [['', *comparisons[0].files, 'difference', '95 %', '']]
        for comparison in comparisons:
            rows += [[name, *cells] for name, cells in _beside(comparison).items()]
        return rows
    columns = _columns(comparisons, splits)
    intervals = _intervals([comparison.score for comparison in comparisons])
    rows = [['', *columns, '95 %']]
    for name in dict.fromkeys(chain(*columns.values())):
        values = [column.get(name, '-') for column in columns.values()]
        rows.append([name, *values, span(intervals.get(name))])
    return rows


def protocol_rows(
    comparisons: Sequence[Comparison], splits: Sequence[int]
) -> list[Row]:
    """A row for each protocol, or with others beside it for each of its thresholds.

    Tubes are in the row of the frames if they are linked as the protocol's authors do.
    """
    if comparisons[0].baselines:
        rows = [
            ['protocol', 'of', 'IoU', *comparisons[0].files, 'difference', '95 %', '']
        ]
        for comparison in comparisons:
            metric, cells = comparison.score.metric, _beside(comparison)
            rows += [
                [metric.protocol_name, metric.unit, thr, *cells[value]]
                for thr, value in _overall(metric).items()
            ]
        return rows
    protocols: list[tuple[str, str, dict[str, str]]] = []
    for comparison in comparisons:
        score = comparison.score
        metric, name = score.metric, score.metric.protocol_name
        kind = 'video' if isinstance(metric, VideoMAPMetric) else 'frame'
        cells = {
            f'{kind} mAP@{thr}': _cell(score, value)
            for thr, value in _overall(metric).items()
        }
        partners = [
            row for row in protocols if row[0] == name and not row[2].keys() & cells
        ]
        if partners and (kind == 'frame' or _links_as_named(comparison)):
            partners[0][2].update(cells)
        else:
            protocols.append((name, _choices(comparison), cells))
    values = dict.fromkeys(chain(*(cells for *_, cells in protocols)))
    rows = [['protocol', 'is', *values, 'used by']]
    for name, choices, cells in protocols:
        texts = [cells.get(value, '-') for value in values]
        rows.append([name, choices, *texts, USERS.get(name, '-')])
    return rows


def _links_as_named(comparison: Comparison) -> bool:
    """True for tubes linked as the authors of the protocol do."""
    metric = comparison.score.metric
    linking = LINKINGS.get(metric.protocol_name)
    return linking == metric.linking and not comparison.is_linked


def _cell(score: Score, name: str) -> str:
    interval = score.interval(name)
    return f'{score.values[name]:.4f}' + (f' {span(interval)}' if interval else '')


def _beside(comparison: Comparison) -> dict[str, list[str | float]]:
    """Both values, their difference, its interval and a remark, by name."""
    score, baseline = comparison.score, comparison.baseline
    difference = score - baseline
    rows = {}
    for name, value in difference.values.items():
        interval = difference.interval(name)
        is_noise = interval and interval[0] <= 0 <= interval[1]
        cells = score.values[name], baseline.values[name], value, span(interval)
        rows[name] = [*cells, NOISE if is_noise else '']
    return rows


def _columns(
    comparisons: Sequence[Comparison], splits: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Values of each split, and their means.

    Raises:
        UserError: two metrics give a value of the same name.
    """
    names = [f'split {split}' for split in splits] or ['value']
    score_rows = [
        [*comparison.splits, comparison.score] if splits else comparison.splits
        for comparison in comparisons
    ]
    names += ['mean'] * bool(splits)
    columns = {}
    for name, column in zip(names, zip(*score_rows, strict=True), strict=True):
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
    return {name: score.interval(name) for score in scores for name in score.draws}


def values_record(
    comparisons: Sequence[Comparison], splits: Sequence[int]
) -> dict[str, Any]:
    """Values as JSON has them."""
    columns = _columns(comparisons, splits)
    record = columns if splits else columns['value']
    record['intervals'] = _intervals([comparison.score for comparison in comparisons])
    if comparisons[0].baselines:
        baselines = [comparison.baseline for comparison in comparisons]
        differences = [pair.score - pair.baseline for pair in comparisons]
        for name, scores in ('against', baselines), ('difference', differences):
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


def protocol_record(comparison: Comparison) -> dict[str, Any]:
    """Values by a protocol, as JSON has them."""
    score, baseline = comparison.score, comparison.baseline
    metric = score.metric

    def at_thrs(get: Callable[[str], Any]) -> dict[str, Any]:
        return {f'mAP@{thr}': get(name) for thr, name in _overall(metric).items()}

    record = {
        'protocol': metric.protocol_name,
        'of': metric.unit,
        'is': _choices(comparison),
        **at_thrs(score.values.get),
        'used by': USERS.get(metric.protocol_name, '-'),
        'intervals': at_thrs(score.interval),
        'classes': {
            name: dict(AP=value, interval=interval)
            for name, (value, interval) in class_values(score).items()
        },
    }
    if baseline:
        difference = score - baseline
        record['against'] = at_thrs(baseline.values.get)
        record['difference'] = at_thrs(difference.values.get)
        record['difference_intervals'] = at_thrs(difference.interval)
    return record


def _choices(comparison: Comparison) -> str:
    """A protocol in three words: its frames, of tubes their linking; matching; AP."""
    metric = comparison.score.metric
    first = metric.protocol.frames
    if isinstance(metric, VideoMAPMetric):
        names = [
            name for name, linking in LINKINGS.items() if linking == metric.linking
        ]
        first = 'given' if comparison.is_linked else [*names, 'own'][0]
    return f'{first} {metric.protocol.matching} {metric.protocol.ap}'
