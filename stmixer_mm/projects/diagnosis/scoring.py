"""Values of metrics with intervals: matched once, then drawn anew by test video."""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
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
from stmixer_mm.evaluation.results.rows import Results
from stmixer_mm.projects.diagnosis.bootstrap import (
    MatchedDetections,
    draw_videos,
    interval,
    weighted_aps,
    weighted_means,
)
from stmixer_mm.projects.diagnosis.offline import feed

Interval = tuple[float, float]


class Score(NamedTuple):
    """Values by name, and those in draws of videos where there is an interval."""

    values: dict[str, float]
    draws: dict[str, np.ndarray]  # (D,)

    def interval(self, name: str) -> Interval | None:
        return interval(self.draws[name]) if name in self.draws else None

    def intervals(self) -> dict[str, Interval]:
        return {name: interval(values) for name, values in self.draws.items()}

    def select(self, names: Mapping[str, str]) -> 'Score':
        """Those of the values that are there, by new names."""
        tables = (
            {new: table[name] for new, name in names.items() if name in table}
            for table in self
        )
        return Score(*tables)

    def __sub__(self, other: 'Score') -> 'Score':
        """Differences of what both have, in the same draws."""
        tables = (
            {name: table[name] - others[name] for name in table if name in others}
            for table, others in zip(self, other, strict=True)
        )
        return Score(*tables)


def mean_score(splits: Sequence[Score]) -> Score:
    """The mean over splits of what all of them have."""

    def mean(tables: Sequence[dict]) -> dict:
        names = [name for name in tables[0] if all(name in table for table in tables)]
        return {
            name: sum(table[name] for table in tables) / len(tables) for name in names
        }

    return Score(*map(mean, zip(*splits, strict=True)))


def join_scores(scores: Sequence[Score]) -> Score:
    """Scores by several metrics as one.

    Raises:
        UserError: two metrics give a value of the same name.
    """
    joined = Score({}, {})
    for score in scores:
        if doubles := joined.values.keys() & score.values.keys():
            raise UserError(
                f'Two metrics of test_evaluator give the value {min(doubles)!r}; set '
                'the prefix of one.'
            )
        joined = Score(joined.values | score.values, joined.draws | score.draws)
    return joined


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
    for side, predictions in zip(metrics, results, strict=True):
        side.results = []
        feed(side, predictions)
    if not isinstance(metric, DetectionMetric):
        return [Score(side.evaluate(len(side.results)), {}) for side in metrics]
    matched = [match_results(side) for side in metrics]
    _check_videos(matched, [predictions.file for predictions in results])
    names = sorted(set().union(*(side.videos for side in matched)))
    if len(names) < 2 or not draws:
        return [Score(side.values, {}) for side in matched]
    weights = draw_videos(len(names), draws=draws, seed=seed)
    return [Score(side.values, draw_values(side, names, weights)) for side in matched]


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
        group
        for matches in matched.values()
        for group in (matches.groups, matches.gt_groups)
    ]
    last = max(
        len(metric.frame_numbers), *(1 + group.max(initial=-1) for group in groups)
    )
    names = [_video(detections.keyframe_key(number)) for number in range(last)]
    videos, video_of = np.unique(names, return_inverse=True)
    return videos.tolist(), video_of.__getitem__


def draw_values(
    results: MatchedResults, names: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Values (D,) in draws, by name: the means, and the classes at the first threshold.

    A class with ground truth in a single video has none.

    Args:
        results: Of the videos.
        names: V videos, with all of theirs.
        weights: (V, D) int, as of ``draw_videos``.
    """
    metric, rules = results.metric, results.metric.protocol
    numbers = np.searchsorted(names, results.videos)
    area = dict(mode=rules.ap, extra_gts=rules.extra_gts)
    orders = {
        column: by_score(matches.scores) for column, matches in results.matched.items()
    }

    def match_class(column: int, thr: float) -> MatchedDetections:
        matches, order = results.matched[column], orders[column]
        videos = numbers[results.video_of(matches.groups[order])]
        gt_videos = numbers[results.video_of(matches.gt_groups)]
        num_gts = np.bincount(gt_videos, minlength=len(names))
        return MatchedDetections(metric.right(matches, thr)[order], videos, num_gts)

    means, aps, persons = {}, {}, {}
    for thr in {*chain(*metric.iou_thrs.values())}:
        classes = [match_class(column, thr) for column in metric.class_names]
        over = rules.class_average
        means[thr], aps[thr] = weighted_means(classes, weights, over=over, **area)
        if PERSON in results.matched:
            persons[thr] = weighted_aps(match_class(PERSON, thr), weights, **area)
    draws = {}
    for name, values in (('overall', means), ('person_AP', persons)):
        for thr_name, thrs in metric.iou_thrs.items() if values else ():
            mean = np.mean([values[thr] for thr in thrs], axis=0)
            draws[metric.value_name(name, thr_name)] = mean
    thr_name, thrs = next(iter(metric.iou_thrs.items()))
    class_aps = np.mean([aps[thr] for thr in thrs], axis=0)
    for name, matched, values in zip(
        metric.class_names.values(), classes, class_aps, strict=True
    ):
        if np.count_nonzero(matched.gts) > 1:
            draws[metric.value_name(name, thr_name)] = values
    return {f'{metric.prefix}/{name}': values for name, values in draws.items()}


def _check_videos(matched: Sequence[MatchedResults], files: Sequence[str]) -> None:
    """Refuse to compare results of other videos, and note where some are missing."""
    first_videos, *other_videos = (results.predicted for results in matched)
    for file, other in zip(files[1:], other_videos, strict=True):
        if 2 * len(first_videos & other) < len(first_videos | other):
            raise UserError(
                f'{file} has predictions in {len(first_videos & other)} of the '
                f'{len(first_videos)} test videos in which {files[0]} has any, as '
                f'{min(first_videos ^ other)}; compare results of the same videos.'
            )
        if first_videos != other:
            unshared = first_videos ^ other
            print(
                f'note: {len(unshared)} videos, as {min(unshared)}, have predictions in '
                f'one of {files[0]} and {file} alone.',
                file=sys.stderr,
            )
