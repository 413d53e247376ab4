"""Linked tubes, as MultiSports, ACT and MOC publish them.

In all of them labels count from 0 and frames from 1, and boxes are in pixels. A tube is
an array (n, 5 or 6) of frame, x1, y1, x2, y2 and, at will, a score of the box, which no
evaluator reads.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.datasets.annotations.tube_annotations import check_tube
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.metrics.video_map_metric import VideoMAPMetric
from stmixer_mm.evaluation.results.rows import Results, result_reader
from stmixer_mm.files import check_file
from stmixer_mm.plain_pickle import read_plain_pickle

REMEDY = (
    'write a dict from labels to lists of (video, score, array) as MultiSports, or a '
    "folder of *_tubes.pkl with lists of (array, score) as ACT; an array's rows are "
    'rising whole frames from 1, x1, y1, x2, y2 in pixels, and scores are in [0, 1]'
)
VideoTubes = dict[str, list[tuple[int, float, np.ndarray]]]  # label, score, (n, 5)


@result_reader
def tube_results(path: Path, content: Any) -> Results | None:
    """``video_detections`` of MultiSports: label -> tuples (video, score, array)."""
    if not isinstance(content, Mapping):
        return None
    file = str(path)
    tubes = _read(file, content)
    return Results(file, VideoMAPMetric, partial(_samples, file, lambda metric: tubes))


@result_reader
def folder_results(folder: Path, content: Any) -> Results | None:
    """The files of ``BuildTubes`` of ACT and MOC: ``<video>_tubes.pkl`` of test videos.

    A file is a dict: label -> pairs (array, score). As in their ``videoAP``, tubes are
    removed that overlap a better one of their label by more than 0.3.
    """
    if not any(folder.rglob('*_tubes.pkl')):
        return None

    def read(metric: VideoMAPMetric) -> VideoTubes:
        tubes = {}
        for video in metric.videos:
            file = Path(folder, f'{video}_tubes.pkl')
            check_file(file, remedy='give a folder with tubes of all test videos')
            content = read_plain_pickle(file, kind='a pickle of tubes')
            tubes |= _read(str(file), content, video=video)
        return tubes

    nms_iou = LINKINGS['act'].tube_nms_iou
    samples = partial(_samples, str(folder), read, tube_nms_iou=nms_iou)
    return Results(str(folder), VideoMAPMetric, samples)


def _samples(
    file: str,
    read_tubes: Callable[[VideoMAPMetric], VideoTubes],
    metric: VideoMAPMetric,
    **options: float,
) -> Iterator[tuple[str, dict]]:
    """Place and sample of each video."""
    for video, tubes in read_tubes(metric).items():
        place, last = f'{file}, {video}', max(label for label, *_ in tubes)
        if last >= metric.num_classes - 1:
            raise UserError(
                f'{place}: label {last} is out of range for {metric.num_classes - 1} '
                'labels, which count from 0; give the ground truth of the tested dataset.'
            )
        yield place, dict(video_id=video, pred_tubes=tubes, **options)


def _read(file: str, content: Any, *, video: str | None = None) -> VideoTubes:
    """Tubes of a dict from labels to lists, of many videos or of one."""
    video_tubes = defaultdict(list)
    with blame(f'{file} is not of tubes', REMEDY):
        lists = [(label, list(tubes)) for label, tubes in content.items()]
    for label, tubes in lists:
        for number, entry in enumerate(tubes, start=1):
            with blame(f'{file}, label {label!r}, tube {number}', REMEDY):
                rows, score, name = (*entry, video) if video else entry[::-1]
                if not (int(label) == label >= 0 and isinstance(name, str)):
                    raise ValueError(f'it is of video {name!r}')
                if not 0 <= score <= 1:
                    raise ValueError(f'its score is {score}')
                rows = np.asarray(rows)
                rows = check_tube(rows[:, :5] if rows.shape[1:] == (6,) else rows)
                video_tubes[name].append((int(label), float(score), rows))
    boxes = [rows[:, 1:].max() for tubes in video_tubes.values() for *_, rows in tubes]
    if max(boxes, default=2 if video else 0) <= 1:
        raise UserError(f'{file} has no tube of more than one pixel; {REMEDY}.')
    return video_tubes
