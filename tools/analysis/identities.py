"""Score the ids that the tracker gives to persons of videos with annotated tracks.

At each rate of keyframes, it follows the annotated boxes and those that a model finds.
The latter also get the ids of an association by the ground truth, and those of a model
with track queries. AP is that of persons at all keyframes. The figures are TrackEval's:
pip install --no-deps trackeval tabulate (it asks for an OpenCV that needs a desktop).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, count, groupby
from pathlib import Path
from typing import NamedTuple

from stmixer_mm.apis.inference import detect_video, init_detector
from stmixer_mm.apis.inferencer import NMS_THR
from stmixer_mm.apis.tracking import DEFAULT_TRACKER, build_tracker
from stmixer_mm.command_line import Positive, Score, run_main
from stmixer_mm.datasets.annotations.ava_csv import raise_first, read_keyframe_rows
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.functional.average_precision import (
    average_precision,
    by_score,
)
from stmixer_mm.evaluation.functional.matching import Boxes, frame_pairs, match
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from scipy.optimize import linear_sum_assignment
from torch import nn
from tqdm import tqdm

IOU_THR = 0.5  # of a box and its person; HOTA takes 19 of them


class ScoredKeyframe(NamedTuple):
    """Persons of a keyframe, annotated and found."""

    time_s: float
    true_ids: list[int]
    true_bboxes: np.ndarray  # (k, 4) pixel xyxy
    bboxes: np.ndarray  # (n, 4)
    person_scores: np.ndarray | None = None  # (n,)
    vectors: np.ndarray | None = None  # (n, C)
    ids: list[int] | None = None  # (n,) that the model gives


Video = list[ScoredKeyframe]


class Recorder:
    """A tracker that records its arguments."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def extend(self, *told: object) -> np.ndarray:
        self.told.append(told)
        return np.arange(len(told[1]))


def read_videos(
    tracks: str, folder: str, model: nn.Module, nms_thr: float, rate: float = np.inf
) -> list[Video]:
    """Keyframes as far apart as the nearest two of the csv, or fewer, at a rate."""
    rows, faults = read_keyframe_rows(tracks)
    raise_first(faults)
    truth = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        when = round(float(row.timestamp), 3)
        truth[row.video_id][when][row.person_id] = row.bbox_norm
    gaps = [np.diff(sorted(times)) for times in truth.values()]
    step = round(np.concatenate(gaps).min(initial=np.inf), 3)
    if not np.isfinite(step):
        raise UserError(f'{tracks}: no video has two keyframes; give another file.')
    start = min(min(times) for times in truth.values())
    step *= max(1, round(1 / rate / step))
    videos = []
    for name, persons in tqdm(sorted(truth.items()), unit='video'):
        path, recorder = Path(folder, name), Recorder()
        options = dict(interval_s=step, start=start, nms_thr=nms_thr)
        found = [*detect_video(model, path, tracker=recorder, **options)]
        vectors = [vectors for *_, vectors in recorder.told] or [None] * len(found)
        size = open_video(path).size[::-1] * 2
        videos.append([])
        for one, looks in zip(found, vectors, strict=True):
            here = persons.get(round(one.time_s, 3), {})
            bboxes = np.reshape([*here.values()], (-1, 4)) * size
            scores = one.person_scores
            scores = None if scores is None else np.array(scores)
            its = one.bboxes, scores, looks, one.ids
            videos[-1].append(ScoredKeyframe(one.time_s, [*here], bboxes, *its))
    return videos


def at_rate(video: Video, rate: float) -> Video:
    """The first keyframe in each interval of 1 / rate seconds."""
    start, chosen = video[0].time_s, {}
    for one in video:
        chosen.setdefault(int((one.time_s - start) * rate + 1e-6), one)
    return [*chosen.values()]


def follow(video: Video) -> list[np.ndarray]:
    tracker = build_tracker(DEFAULT_TRACKER)
    return [
        tracker.extend(one.time_s, one.bboxes, one.person_scores, one.vectors)
        for one in video
    ]


def know(video: Video) -> list[np.ndarray]:
    """The ids of an association that knows the truth."""
    fresh, ids = count(-1, -1), []
    for one in video:
        names = [next(fresh) for _ in one.bboxes]
        ious = overlaps(one)
        pairs = linear_sum_assignment(-ious * (ious >= IOU_THR))
        for true, found in zip(*pairs, strict=True):
            if ious[true, found] >= IOU_THR:
                names[found] = one.true_ids[true]
        ids.append(np.array(names, int))
    return ids


def overlaps(keyframe: ScoredKeyframe) -> np.ndarray:
    """IoUs (k, n) of the annotated boxes and those found."""
    boxes = keyframe.true_bboxes, keyframe.bboxes
    return bbox_overlaps(
        *(torch.as_tensor(one, dtype=torch.float64) for one in boxes)
    ).numpy()


def sequence(video: Video, ids: Sequence[np.ndarray]) -> dict:
    """A video in the form of TrackEval's metrics, which count ids from 0."""
    data = dict(num_timesteps=len(video))
    of_truth = [one.true_ids for one in video]
    for kind, groups in (('gt', of_truth), ('tracker', ids)):
        numbers = {
            one: number for number, one in enumerate(dict.fromkeys(chain(*groups)))
        }
        data[f'{kind}_ids'] = [
            np.array([numbers[one] for one in group], int) for group in groups
        ]
        data[f'num_{kind}_ids'] = len(numbers)
        data[f'num_{kind}_dets'] = sum(map(len, groups))
    return data | dict(similarity_scores=[*map(overlaps, video)])


def alone(video: Video, ids: Sequence[np.ndarray]) -> Iterator[dict]:
    """Stretches of keyframes that show one person, the same one, as sequences."""
    both = zip(video, ids, strict=True)
    for persons, stretch in groupby(both, key=lambda pair: pair[0].true_ids):
        if len(persons) == 1:
            yield sequence(*zip(*stretch, strict=True))


def metrics() -> tuple:
    """HOTA, CLEAR MOT and identity metrics, from TrackEval."""
    with blame('TrackEval cannot be used', 'pip install --no-deps trackeval tabulate'):
        from trackeval.metrics import CLEAR, HOTA, Identity

        config = dict(THRESHOLD=IOU_THR, PRINT_CONFIG=False)
        return HOTA(), CLEAR(config), Identity(config)


def score(videos: Sequence[Video], follow: Callable[[Video], list]) -> dict[str, float]:
    hota, clear, identity = metrics()
    ids = [*map(follow, videos)]
    sequences = [*map(sequence, videos, ids)]

    def combine(metric: object, sequences: list[dict]) -> dict:
        return metric.combine_sequences(
            {number: metric.eval_sequence(one) for number, one in enumerate(sequences)}
        )

    clear_of_all = combine(clear, sequences)
    clear_of_one = combine(clear, [*chain.from_iterable(map(alone, videos, ids))])
    return dict(
        IDF1=float(combine(identity, sequences)['IDF1']),
        HOTA=float(combine(hota, sequences)['HOTA'].mean()),
        MOTA=float(clear_of_all['MOTA']),
        switches=int(clear_of_all['IDSW']),
        alone=int(clear_of_one['IDSW']),
        AP=person_ap(videos),
    )


def person_ap(videos: Sequence[Video]) -> float:
    """AP of the boxes, whoever they show."""
    keyframes = [*chain.from_iterable(videos)]

    def gather(bboxes: list[np.ndarray], scores: list[np.ndarray]) -> Boxes:
        frames = np.repeat(np.arange(len(bboxes)), [*map(len, bboxes)])
        return Boxes(frames, np.concatenate(bboxes), np.concatenate(scores))

    bboxes, truth = zip(
        *((one.bboxes, one.true_bboxes) for one in keyframes), strict=True
    )
    scores = [
        np.ones(len(one.bboxes)) if one.person_scores is None else one.person_scores
        for one in keyframes
    ]
    found, truth = gather(bboxes, scores), gather(truth, [one[:, 0] for one in truth])
    pairs = frame_pairs(found, truth)
    right = match(found.scores, found.frames, pairs, IOU_THR, matching='best')
    right = right[by_score(found.scores)]
    return average_precision(right, len(truth.frames), mode='interpolated')


def compare(
    model: nn.Module, rates: Sequence[float], read: Callable[..., list[Video]]
) -> list[dict]:
    follows = bool(model.start_video())
    everything = [] if follows else read()
    figures = []
    for rate in rates:
        found = [at_rate(video, rate) for video in everything]
        ways = {DEFAULT_TRACKER: follow, 'the truth': know}
        if follows:
            found = read(rate=rate)
            ways['the model'] = lambda video: [np.array(one.ids, int) for one in video]
        annotated = [
            [
                one._replace(bboxes=one.true_bboxes, person_scores=None, vectors=None)
                for one in video
            ]
            for video in found
        ]
        heading = dict(rate=rate, boxes='annotated', tracker=DEFAULT_TRACKER)
        figures.append(heading | score(annotated, follow))
        for name, way in ways.items():
            heading = dict(rate=rate, boxes='found', tracker=name)
            figures.append(heading | score(found, way))
    return figures


def main(
    tracks: str,
    videos: str,
    config: str,
    checkpoint: str,
    *,
    rates: Sequence[Positive] = (1.0, 2.0, 5.0),
    nms_thr: Score = NMS_THR,
    device: str = 'cpu',
    json: str | None = None,
) -> None:
    """
    Args:
        tracks: csv in AVA's format with ids, as val_tracks.csv.
        videos: Folder of its videos.
        config: Config file.
        checkpoint: Checkpoint file or URL.
        rates: Keyframes per second, of those of the csv.
        nms_thr: Of persons whose boxes overlap more, keep the highest-scoring; 1: all.
        device: Such as cpu or cuda:0.
        json: File for the figures.
    """
    check_json_path(json)
    metrics()  # before the model works
    model = init_detector(config, checkpoint, device=device)
    read = partial(read_videos, tracks, videos, model, nms_thr)
    figures = compare(model, rates, read)
    rows = [figures[0].keys(), *(one.values() for one in figures)]
    print(format_table([[*row] for row in rows], left=3, digits=3))
    heading = dict(tracks=tracks, config=config, nms_thr=nms_thr)
    write_json(json, heading | dict(figures=figures))


if __name__ == '__main__':
    run_main(main)
