"""What each choice of a protocol changes, one at a time."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.protocols import (
    CHOICES,
    FRAME_PROTOCOLS,
    KEYFRAME_PROTOCOLS,
    TUBE_PROTOCOLS,
    BoxRule,
    Protocol,
)
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.results.offline import feed
from stmixer_mm.evaluation.results.rows import Results
from stmixer_mm.registry import METRICS

_PUBLISHED = [
    rules
    for known in (KEYFRAME_PROTOCOLS, FRAME_PROTOCOLS, TUBE_PROTOCOLS)
    for rules in known.values()
]
_FED = 'classes', 'score_thr', 'drop_empty_boxes'  # decide what a metric is fed with


class Change(NamedTuple):
    """A choice made otherwise."""

    field: str  # of ``Protocol``
    choice: str
    other: str
    value: float | None  # mean AP at the first threshold; None where it cannot be had
    difference: float | None


def sensitivity(config: Mapping[str, Any], results: Results) -> list[Change]:
    """Changes of the mean AP by each value that a published protocol has, and others.

    Args:
        config: Of a metric of detections; its choices are those that change.
        results: To evaluate.
    """
    metric = METRICS.build(config)
    nms = config.get('nms') or metric.protocol.nms
    chosen = metric.protocol._replace(nms=nms, score_thr=metric.score_thr)
    rest = {key: value for key, value in config.items() if key not in chosen._fields}
    fed, changes = {}, []
    value = _mean_ap({**rest, 'protocol': chosen}, results, fed)
    for field, other in _others(chosen):
        changed = {**rest, 'protocol': chosen._replace(**{field: other})}
        try:
            found = _mean_ap(changed, results, fed)
        except UserError:  # it leaves nothing to evaluate
            found = None
        texts = describe(getattr(chosen, field)), describe(other)
        difference = None if found is None else found - value
        changes.append(Change(field, *texts, found, difference))
    return changes


def _others(chosen: Protocol) -> Iterator[tuple[str, Any]]:
    for field in Protocol._fields:
        values = [*CHOICES.get(field, ()), *(getattr(one, field) for one in _PUBLISHED)]
        values += [True, False] * isinstance(values[0], bool)
        for value in dict.fromkeys(values):
            if value != getattr(chosen, field):
                yield field, value


def _mean_ap(config: dict, results: Results, fed: dict[tuple, list]) -> float:
    """Mean AP by a metric, which is fed once with what such protocols count."""
    metric: DetectionMetric = METRICS.build(config)
    metric.logs_classes = False
    key = tuple(getattr(metric.protocol, name) for name in _FED)
    if key not in fed:
        feed(metric, results)
        fed[key] = metric.results
    copies = [[dict(part) for part in parts] for parts in fed[key]]
    values = metric.values(metric.match_classes(metric.detections(copies)))
    return next(iter(values.values()))


def describe(value: object) -> str:
    """A value of a protocol in words."""
    if isinstance(value, BoxRule):
        named = zip(BoxRule._fields, value, BoxRule(), strict=True)
        words = [f'{name} {one:g}' for name, one, default in named if one != default]
        return ', '.join(words) or 'as they are'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return '-' if value is None else f'{value}'
