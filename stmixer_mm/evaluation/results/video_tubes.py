"""Tubes that somebody else has linked, as MultiSports, ACT and MOC publish them.

In all of them labels count from 0 and frames from 1, and boxes are in pixels. A tube is
an array (n, 5 or 6) of frame, x1, y1, x2, y2 and, at will, a score of the box, which no
evaluator reads.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.datasets.annotations.tube_annotations import check_tube
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.tubes import (
    Tubes,
    join_tubes,
    suppress_tubes,
    take_tubes,
)
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.tube_metrics import VideoMAPMetric
from stmixer_mm.files import check_file
from stmixer_mm.plain_pickle import read_plain_pickle

TUBE = (
    'the score in [0, 1] and rows of a rising whole frame from 1, x1, y1, x2, y2 in '
    'pixels and, at will, a score'
)
_MAX_LABEL = 2**31
VideoTubes = dict[str, list[tuple[int, float, np.ndarray]]]  # label, score, (n, 5)


class TubeDetections:
    """Tubes, which ``VideoMAPMetric`` takes as they are."""

    file: str
    notes: list[str]
    nms_iou: float | None = None  # the tubes of a label may overlap by this

    def tubes(self, metric: VideoMAPMetric) -> VideoTubes:
        """Of each video."""
        raise NotImplementedError

    def samples(
        self, metric: DetectionMetric, *, last: bool = False
    ) -> Iterator[tuple[str, dict]]:
        """Place and sample of each video; what lies beyond its end is left out.

        Raises:
            UserError: the metric takes no tubes, or these do not belong to it.
        """
        del last  # Tubes take little room.
        if not isinstance(metric, VideoMAPMetric):
            raise UserError(
                f'{self.file} is of tubes, which {type(metric).__name__} of '
                'test_evaluator does not take; use VideoMAPMetric.'
            )
        beyond = []
        for video, tubes in self.tubes(metric).items():
            place, number = f'{self.file}, {video}', metric.video_numbers.get(video)
            if number is None or not tubes:
                yield place, dict(video_id=video, pred_tubes=[])
                continue
            labels, scores, arrays = zip(*tubes, strict=True)
            if max(labels) >= len(metric.action_ids):
                raise UserError(
                    f'{place}: the label {max(labels)} is none of the '
                    f'{len(metric.action_ids)} of the ground truth, which count from 0; '
                    'give that of the tested dataset.'
                )
            end, scale = metric.nframes[number], metric.scales[number]
            beyond += [place for rows in arrays if rows[-1, 0] > end]
            arrays = [rows[rows[:, 0] <= end] for rows in arrays]
            found = join_tubes(labels, arrays, scores)
            found = take_tubes(found, found.lengths > 0)
            if self.nms_iou is not None:
                found = suppress_tubes(found, self.nms_iou)
            yield place, dict(video_id=video, pred_tubes=_split(found, scale))
        if beyond:
            self.notes.append(
                f'{beyond[0]}: a tube goes on beyond the end of its video, where it does '
                f'not count ({len(beyond)} such tubes).'
            )


class VideoDetections(TubeDetections):
    """``video_detections`` of MultiSports: label -> tuples (video, score, array).

    Raises:
        UserError: it is something else, or holds no tube.
    """

    def __init__(self, file: str | Path, content: Any) -> None:
        self.file, self.notes = str(file), []
        form = f'(video, score, array), {TUBE}; of ACT and MOC give the folder of tubes'
        self._tubes = _read(self.file, content, tuple, form)
        if not self._tubes:
            raise UserError(f'{file} holds no tube; write {form}.')

    def tubes(self, metric: VideoMAPMetric) -> VideoTubes:
        del metric
        return self._tubes


class TubeFolder(TubeDetections):
    """What ``BuildTubes`` of ACT and MOC writes: ``<video>_tubes.pkl`` of each test video.

    A file is a dict: label -> pairs (array, score). As in their ``videoAP``, tubes go
    that overlap a better one of their label by more than 0.3.
    """

    nms_iou = LINKINGS['act'].tube_nms_iou

    def __init__(self, folder: str | Path) -> None:
        self.file, self.notes = str(folder), []

    def tubes(self, metric: VideoMAPMetric) -> VideoTubes:
        return {video: self._of_video(video) for video in metric.videos}

    def _of_video(self, video: str) -> list[tuple[int, float, np.ndarray]]:
        file = Path(self.file, f'{video}_tubes.pkl')
        check_file(file, remedy='give a folder with tubes of all test videos')
        content = read_plain_pickle(file, kind='a pickle of tubes')
        found = _read(
            str(file),
            content,
            lambda pair: (video, *pair[::-1]),
            f'(array, score), {TUBE}',
        )
        return found.get(video, [])


def _read(
    file: str, content: Any, order: Callable[[Any], tuple], form: str
) -> VideoTubes:
    """Tubes of a dict from labels to lists; ``order`` gives video, score and array."""
    found, remedy = defaultdict(list), f'write a dict from labels to lists of {form}'
    with blame(f'{file} does not hold tubes', remedy):
        if not isinstance(content, Mapping):
            raise TypeError(f'it is of type {type(content).__name__}')
        lists = [(label, list(tubes)) for label, tubes in content.items()]
    for label, tubes in lists:
        for number, entry in enumerate(tubes, start=1):
            with blame(f'{file}, label {label!r}, tube {number}', remedy):
                video, score, rows = order(entry)
                is_label = isinstance(label, Real) and 0 <= label < _MAX_LABEL
                if not (is_label and label % 1 == 0 and isinstance(video, str)):
                    raise ValueError(f'it is of label {label!r} in video {video!r}')
                if not 0 <= score <= 1:
                    raise ValueError(f'its score is {score}')
                rows = np.asarray(rows)
                rows = rows[:, :5] if rows.shape[1:] == (6,) else rows
                found[video].append((int(label), float(score), check_tube(rows)))
    arrays = [rows for tubes in found.values() for *_, rows in tubes]
    if arrays and max(rows[:, 1:].max() for rows in arrays) <= 1:
        raise UserError(
            f'{file}: all boxes lie within one pixel; multiply them by width and '
            'height, if they are in [0, 1].'
        )
    return found


def _split(tubes: Tubes, scale: np.ndarray) -> list[dict]:
    """Tubes whose sequences are labels, in pixels, as samples have them."""
    ends = tubes.ends[:-1]
    fields = (
        tubes.sequences + 1,  # columns
        tubes.scores,
        np.split(tubes.frames, ends),
        np.split(tubes.bboxes / scale, ends),
    )
    names = ('label', 'score', 'frames', 'bboxes')
    # Of no tube, np.split makes one part.
    return [dict(zip(names, one, strict=True)) for one in zip(*fields, strict=False)]
