"""Detections drawn into a video and written beside it, a frame at a time."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from stmixer_mm.apis.inference import KeyframeDetections, VideoInfo
from stmixer_mm.datasets.frames import open_video
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import atomic_path, open_atomically
from stmixer_mm.visualization.draw import draw_detections

# What any build of OpenCV with FFmpeg can write.
_CODECS = {'.mp4': 'mp4v', '.mov': 'mp4v', '.mkv': 'mp4v', '.avi': 'MJPG'}
_CSV_COLUMNS = (
    *('video', 'time_s', 'frame', 'person'),
    *('x1', 'y1', 'x2', 'y2', 'action', 'score'),
)


def match_persons(before: np.ndarray, after: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j) of boxes of two keyframes that can be the same person.

    Args:
        before, after: (n, 4) and (m, 4) pixel xyxy.

    A person moves by less than the box's own size (the root of its area) from one
    keyframe to the next, and that size changes by less than a factor of 1.6. Of all
    such pairings the one with the smallest movements is taken.
    """

    def centres_and_sizes(bboxes):
        spans = np.maximum(bboxes[:, 2:] - bboxes[:, :2], 1e-6)
        return (bboxes[:, 2:] + bboxes[:, :2]) / 2, np.sqrt(spans.prod(axis=1))

    centres, sizes = centres_and_sizes(before)
    other_centres, other_sizes = centres_and_sizes(after)
    scale = np.sqrt(sizes[:, None] * other_sizes)
    moved = np.linalg.norm(centres[:, None] - other_centres, axis=2) / scale
    grown = np.abs(np.log(sizes[:, None] / other_sizes))
    possible = (moved < 1) & (grown < np.log(1.6))
    impossible = 1e3
    rows, columns = linear_sum_assignment(np.where(possible, moved, impossible))
    return [(i, j) for i, j in zip(rows, columns, strict=True) if possible[i, j]]


class _Track:
    """A keyframe with a number per person that lasts from keyframe to keyframe."""

    def __init__(self, found: KeyframeDetections, earlier: '_Track | None') -> None:
        self.found = found
        self.next_id, matched = 0, {}
        if earlier:
            self.next_id = earlier.next_id
            pairs = match_persons(earlier.found.bboxes, found.bboxes)
            matched = {j: i for i, j in pairs}
        self.ids = []
        for person in range(len(found.bboxes)):
            if person in matched:
                self.ids.append(earlier.ids[matched[person]])
            else:
                self.ids.append(self.next_id)
                self.next_id += 1


def _at_frame(before: _Track, after: _Track | None, frame: int):
    """Boxes, actions and ids to show at a frame between two keyframes.

    Persons found at both move in a straight line; others are shown at the frames
    nearest to their keyframe. Actions are those of the nearest keyframe.
    """
    if after is None:
        return before.found.bboxes, before.found.actions, before.ids
    gap = after.found.frame_index - before.found.frame_index
    share = (frame - before.found.frame_index) / gap
    near, far, share = (
        (before, after, share) if share < 0.5 else (after, before, 1 - share)
    )
    bboxes = np.array(near.found.bboxes, float).reshape(-1, 4)
    for person, number in enumerate(near.ids):
        if number in far.ids:
            other = far.found.bboxes[far.ids.index(number)]
            bboxes[person] += share * (other - bboxes[person])
    return bboxes, near.found.actions, near.ids


def annotated_frames(
    frames: Iterable[tuple[int, np.ndarray]],
    keyframes: Iterable[KeyframeDetections],
) -> Iterator[np.ndarray]:
    """Draw detections on consecutive frames, holding two keyframes at a time.

    Args:
        frames: (index, RGB uint8 (h, w, 3)), the first not before the first keyframe.
        keyframes: In order of time.
    """
    keyframes = iter(keyframes)

    def following(earlier: _Track | None) -> _Track | None:
        for found in keyframes:
            # Short intervals can put several keyframes on one frame.
            if earlier is None or found.frame_index > earlier.found.frame_index:
                return _Track(found, earlier)
        return None

    before = following(None)
    after = following(before) if before else None
    for index, frame in frames:
        while after and index >= after.found.frame_index:
            before, after = after, following(after)
        if before is None:
            yield frame
        else:
            bboxes, actions, ids = _at_frame(before, after, index)
            yield draw_detections(frame, bboxes, actions, ids=ids)


def check_video_path(path: str | Path) -> None:
    """Raises ``UserError`` if videos of this suffix cannot be written."""
    if Path(path).suffix.lower() not in _CODECS:
        raise UserError(
            f'{path} has no suffix of a video that can be written; '
            f'use one of {", ".join(_CODECS)}.'
        )


def render_video(
    video: str | Path,
    keyframes: Iterable[KeyframeDetections],
    out: str | Path,
    *,
    info: VideoInfo,
    first_frame: int = 0,
    end_frame: int | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> int:
    """Write a video with the detections drawn on each of its frames.

    Rate and size are kept (an odd width or height loses one pixel, which the codecs
    cannot hold), sound is not. The file appears when it is whole.

    Args:
        video: Video file that was detected on.
        keyframes: Of :func:`detect_video`; taken as the frames need them.
        out: ``.mp4``, ``.mov``, ``.mkv`` or ``.avi``.
        info: Of :func:`video_info`.
        first_frame, end_frame: Part of the video, the end not included.
        on_frame: Called after each frame.

    Returns:
        The number of frames written.

    Raises:
        UserError: a frame of ``video`` cannot be decoded, or ``out`` not be written.
    """
    check_video_path(out)
    end_frame = info.total_frames if end_frame is None else end_frame
    frames = _read_frames(video, first_frame, end_frame)
    with atomic_path(out) as part:
        codec = cv2.VideoWriter_fourcc(*_CODECS[Path(out).suffix.lower()])
        writer = cv2.VideoWriter(str(part), codec, info.fps, (info.width, info.height))
        try:
            if not writer.isOpened():
                raise UserError(
                    f'{out} cannot be written by this OpenCV; try a name in .avi.'
                )
            for frame in annotated_frames(frames, keyframes):
                writer.write(np.ascontiguousarray(frame[..., ::-1]))
                on_frame()
        finally:
            writer.release()
        # The writer says nothing of a full disk.
        _check_written(part, out, end_frame - first_frame)
    return end_frame - first_frame


def _read_frames(
    video: str | Path, first_frame: int, end_frame: int
) -> Iterator[tuple[int, np.ndarray]]:
    remedy = 'fetch the video again or re-encode it'
    with blame(f'{video}: frame {first_frame} cannot be decoded', remedy):
        reader = open_video(str(video))
        reader.seek_accurate(first_frame)
    for index in range(first_frame, end_frame):
        with blame(f'{video}: frame {index} cannot be decoded', remedy):
            frame = reader.next().asnumpy()
        yield index, frame


def _check_written(part: Path, out: str | Path, expected: int) -> None:
    capture = cv2.VideoCapture(str(part))
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    if frames != expected:
        raise UserError(
            f'{out} holds {frames} of {expected} frames after writing; is the disk full?'
        )


@contextmanager
def detection_file(
    path: str | Path, *, video: str | Path, info: VideoInfo
) -> Iterator[Callable[[KeyframeDetections], None]]:
    """Yield a function that appends a keyframe to a JSON or CSV file, by its suffix.

    JSON: ``{video, fps, width, height, keyframes: [{time_s, frame, persons: [{bbox,
    actions: [{action, score}]}]}]}``. CSV: a row per person and action; a person
    without an action has one row in which these columns are empty. Boxes are pixel
    xyxy. The file appears when it is whole, and nothing is kept in memory.

    Raises:
        UserError: for another suffix.
    """
    check_detection_path(path)
    is_json = Path(path).suffix.lower() == '.json'
    writer = _json_writer if is_json else _csv_writer
    with (
        open_atomically(path, encoding='utf-8', newline='') as file,
        writer(file, str(video), info) as add,
    ):
        yield add


def check_detection_path(path: str | Path) -> None:
    """Raises ``UserError`` if detections cannot be written to files of this suffix."""
    if Path(path).suffix.lower() not in ('.json', '.csv'):
        raise UserError(f'{path} must end in .json or .csv.')


@contextmanager
def _json_writer(file, video: str, info: VideoInfo):
    header = dict(video=video, fps=info.fps, width=info.width, height=info.height)
    file.write(json.dumps(header)[:-1] + ', "keyframes": [')
    comma = ''

    def add(found: KeyframeDetections) -> None:
        nonlocal comma
        persons = [
            dict(
                bbox=[round(float(value), 2) for value in bbox],
                actions=[
                    dict(action=label, score=round(score, 4)) for label, score in pairs
                ],
            )
            for bbox, pairs in zip(found.bboxes, found.actions, strict=True)
        ]
        time_s = round(found.time_s, 3)
        record = dict(time_s=time_s, frame=found.frame_index, persons=persons)
        file.write(f'{comma}\n  {json.dumps(record, ensure_ascii=False)}')
        comma = ','

    yield add
    file.write('\n]}\n')


@contextmanager
def _csv_writer(file, video: str, info: VideoInfo):
    writer = csv.writer(file)
    writer.writerow(_CSV_COLUMNS)

    def add(found: KeyframeDetections) -> None:
        keyframe = (video, f'{found.time_s:.3f}', found.frame_index)
        boxes = zip(found.bboxes, found.actions, strict=True)
        for person, (bbox, pairs) in enumerate(boxes):
            place = (*keyframe, person, *(f'{value:.2f}' for value in bbox))
            scored = [(label, f'{score:.4f}') for label, score in pairs]
            writer.writerows([*place, *pair] for pair in scored or [('', '')])

    yield add
