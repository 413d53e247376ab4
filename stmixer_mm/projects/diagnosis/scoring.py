"""Values of metrics with intervals: matched once, then drawn anew by test video."""

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.average_precision import by_score
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric, Matched
from stmixer_mm.evaluation.metrics.frame_map_metric import PERSON
from stmixer_mm.evaluation.metrics.predictions import Detections
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.evaluation.results.offline import feed
from stmixer_mm.evaluation.results.rows import Results
from stmixer_mm.projects.diagnosis.bootstrap import (
    Judged,
    draw_videos,
    interval,
    weighted_aps,
    weighted_means,
)

Interval = tuple[float, float]


@dataclass
class Score:
    """Values of a metric, of several splits their means."""

    metric: BaseMetric
    values: dict[str, float]
    draws: dict[str, np.ndarray]  # (D,) in draws of videos, where there is an interval

    def interval(self, name: str) -> Interval | None:
        return interval(self.draws[name]) if name in self.draws else None

    def __sub__(self, other: 'Score') -> 'Score':
        """Differences, in the same draws."""
        values = {
            name: value - other.values[name]
            for name, value in self.values.items()
            if name in other.values
        }
        shared = values.keys() & self.draws.keys() & other.draws.keys()
        draws = {name: self.draws[name] - other.draws[name] for name in shared}
        return Score(self.metric, values, draws)


class MatchedResults(NamedTuple):
    """Results of V videos by a metric of detections, with all classes matched."""

    metric: DetectionMetric
    values: dict[str, float]
    matched: dict[int, Matched]  # by column
    videos: list[str]  # names, of test videos and of others in which boxes count
    video_of: Callable[[np.ndarray], np.ndarray]  # their numbers (...) of groups (...)
    predicted: set[str]  # test videos with a prediction


def score_pair(
    metric: BaseMetric, results: Sequence[Results], *, draws: int, seed: int = 0
) -> list[Score]:
    """Scores of one or more results of the same videos, in the same draws."""
    metrics = [copy.copy(metric) for _ in results]
    for one, found in zip(metrics, results, strict=True):
        one.results = []
        feed(one, found)
    if not isinstance(metric, DetectionMetric):
        return [Score(one, one.evaluate(len(one.results)), {}) for one in metrics]
    found = [match_results(one) for one in metrics]
    _check_videos(found, [one.file for one in results])
    names = sorted(set().union(*(one.videos for one in found)))
    if len(names) < 2 or not draws:
        return [Score(one.metric, one.values, {}) for one in found]
    weights = draw_videos(len(names), draws=draws, seed=seed)
    return [
        Score(one.metric, one.values, draw_values(one, names, weights)) for one in found
    ]


def match_results(metric: DetectionMetric) -> MatchedResults:
    """The results that a metric was fed with, which are used up."""
    keys = [part['key'] for parts in metric.results for part in parts]
    detections = metric.detections(metric.results)
    metric.results.clear()
    matched = metric.match_classes(detections)
    values = metric.values(matched)
    values = {f'{metric.prefix}/{name}': value for name, value in values.items()}
    videos, video_of = _videos(metric, detections, matched)
    predicted = {*map(_video, keys)} & {*videos}
    return MatchedResults(metric, values, matched, videos, video_of, predicted)


def _video(key: str | tuple) -> str:
    """Video of a keyframe by its key, or of a frame of a tube by its name and number."""
    return key.rpartition(',')[0] if isinstance(key, str) else key[0]


def _videos(
    metric: DetectionMetric, detections: Detections, matched: dict[int, Matched]
) -> tuple[list[str], Callable[[np.ndarray], np.ndarray]]:
    """Names of the videos, and a function from groups to their numbers."""
    if isinstance(metric, TubeMetric):
        limit = 1 if isinstance(metric, VideoMAPMetric) else metric.frame_limit
        return [*metric.videos], lambda groups: groups // limit
    groups = [
        group for one in matched.values() for group in (one.groups, one.gt_groups)
    ]
    last = max(len(metric.frame_numbers), *(1 + one.max(initial=-1) for one in groups))
    names = [_video(detections.keyframe_key(number)) for number in range(last)]
    videos, video_of = np.unique(names, return_inverse=True)
    return videos.tolist(), video_of.__getitem__


def draw_values(
    found: MatchedResults, names: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Values (D,) in draws, by name: the means, and the classes at the first threshold.

    A class with ground truth in a single video has none.

    Args:
        found: The results.
        names: V videos, with all of theirs.
        weights: (V, D) int, as of ``draw_videos``.
    """
    metric, rules = found.metric, found.metric.protocol
    numbers = np.searchsorted(names, found.videos)
    thrs = {thr for some in metric.iou_thrs.values() for thr in some}
    area = dict(mode=rules.ap, extra_gts=rules.extra_gts)
    orders = {column: by_score(one.scores) for column, one in found.matched.items()}

    def judge(column: int, thr: float) -> Judged:
        one, order = found.matched[column], orders[column]
        groups, gts = one.groups[order], one.gt_groups
        videos, gts = (numbers[found.video_of(some)] for some in (groups, gts))
        num_gts = np.bincount(gts, minlength=len(names))
        return Judged(metric.right(one, thr)[order], videos, num_gts)

    means, aps, persons = {}, {}, {}
    for thr in thrs:
        classes = [judge(column, thr) for column in metric.class_names]
        over = rules.class_average
        means[thr], aps[thr] = weighted_means(classes, weights, over=over, **area)
        if PERSON in found.matched:
            persons[thr] = weighted_aps(judge(PERSON, thr), weights, **area)
    draws = {}
    for name, values in (('overall', means), ('person_AP', persons)):
        for thr, some in metric.iou_thrs.items() if values else ():
            mean = np.mean([values[one] for one in some], axis=0)
            draws[metric.value_name(name, thr)] = mean
    first, some = next(iter(metric.iou_thrs.items()))
    of_classes = np.mean([aps[thr] for thr in some], axis=0)
    for name, one, values in zip(
        metric.class_names.values(), classes, of_classes, strict=True
    ):
        if np.count_nonzero(one.gts) > 1:
            draws[metric.value_name(name, first)] = values
    return {f'{metric.prefix}/{name}': values for name, values in draws.items()}


def _check_videos(found: Sequence[MatchedResults], files: Sequence[str]) -> None:
    """Refuse to compare results of other videos, and note where some are missing."""
    first, *others = (one.predicted for one in found)
    for file, other in zip(files[1:], others, strict=True):
        if 2 * len(first & other) < len(first | other):
            raise UserError(
                f'{file} has predictions in {len(first & other)} of the '
                f'{len(first)} test videos in which {files[0]} has any, as '
                f'{min(first ^ other)}; compare results of the same videos.'
            )
        if first != other:
            print(
                f'note: {len(first ^ other)} videos, as {min(first ^ other)}, have '
                f'predictions in one of {files[0]} and {file} alone.',
                file=sys.stderr,
            )


def mean_score(splits: Sequence[Score]) -> Score:
    """The mean over splits of what all of them have."""
    first, *others = splits

    def mean(dicts: Sequence[dict]) -> dict:
        names = [name for name in dicts[0] if all(name in one for one in dicts[1:])]
        return {name: np.mean([one[name] for one in dicts], axis=0) for name in names}

    if not others:
        return first
    values = mean([one.values for one in splits])
    values = {name: float(value) for name, value in values.items()}
    return Score(first.metric, values, mean([one.draws for one in splits]))
