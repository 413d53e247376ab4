"""Detections drawn into a copy of a video, and written to a table."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import MMLogger
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from stmixer_mm.apis.inference import KeyframeDetections, video_info
from stmixer_mm.datasets.frames import open_video
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import atomic_path, open_atomically, write_json
from stmixer_mm.visualization.draw import draw_detections, person_colors

# What any build of OpenCV with FFmpeg can write.
CODECS = {'.mp4': 'mp4v', '.mov': 'mp4v', '.mkv': 'mp4v', '.avi': 'MJPG'}
TABLES = ('.json', '.csv')
_COLUMNS = (
    *('video', 'time_s', 'frame'),
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


def follow_persons(
    keyframes: Iterable[KeyframeDetections],
) -> Iterator[tuple[KeyframeDetections, list[int]]]:
    """Each keyframe with a number per person that lasts from keyframe to keyframe."""
    fresh = count()
    before, ids = None, []
    for found in keyframes:
        known = {}
        if before is not None:
            if found.frame_index == before.frame_index:  # at short intervals
                continue
            pairs = match_persons(before.bboxes, found.bboxes)
            known = {j: ids[i] for i, j in pairs}
        persons = range(len(found.bboxes))
        ids = [known[one] if one in known else next(fresh) for one in persons]
        before = found
        yield found, ids


def annotated_frames(
    frames: Iterable[tuple[int, np.ndarray]],
    keyframes: Iterable[KeyframeDetections],
) -> Iterator[np.ndarray]:
    """Draw detections on consecutive frames.

    Persons found at both neighbouring keyframes move in a straight line; others are
    shown at the frames nearest to their keyframe. Actions are those of the nearest.

    Args:
        frames: (index, RGB uint8 (h, w, 3)), the first not before the first keyframe.
        keyframes: In order of time; taken as the frames need them.
    """
    tracks = follow_persons(keyframes)
    before = next(tracks, None)
    after = next(tracks, None)
    for index, frame in frames:
        while after and index >= after[0].frame_index:
            before, after = after, next(tracks, None)
        if before is None:
            yield frame
            continue
        (near, ids), (far, far_ids) = before, after or before
        gap = far.frame_index - near.frame_index
        share = (index - near.frame_index) / gap if gap else 0.0
        if share >= 0.5:
            (near, ids), (far, far_ids), share = after, before, 1 - share
        bboxes = np.array(near.bboxes, float)
        for person, number in enumerate(ids):
            if number in far_ids:
                other = far.bboxes[far_ids.index(number)]
                bboxes[person] += share * (other - bboxes[person])
        colors = person_colors(ids)
        yield draw_detections(frame, bboxes, near.actions, colors=colors)


def render_video(
    video: str | Path,
    keyframes: Iterable[KeyframeDetections],
    out: str | Path,
    *,
    start: float = 0.0,
    end: float | None = None,
    show_progress: bool = False,
) -> None:
    """Write a video with the detections drawn on each of its frames.

    Rate and size are kept (an odd width or height loses one pixel, which the codecs
    cannot hold), sound is not. The file appears when it is whole.

    Args:
        video: Video file that was detected on.
        keyframes: Of :func:`detect_video`; taken as the frames need them.
        out: A file with one of the suffixes of ``CODECS``.
        start, end: Part of the video in seconds; at least one frame is written.
        show_progress: Count the frames in the terminal.

    Raises:
        UserError: a frame of ``video`` cannot be decoded, or ``out`` not be written.
    """
    info = video_info(video)
    first, stop = round(start * info.fps), info.total_frames
    if end is not None:
        stop = max(first + 1, round(min(end, info.duration_s) * info.fps))
    with atomic_path(out) as part:
        codec = cv2.VideoWriter_fourcc(*CODECS[Path(out).suffix.lower()])
        writer = cv2.VideoWriter(str(part), codec, info.fps, (info.width, info.height))
        try:
            if not writer.isOpened():
                raise UserError(
                    f'{out} cannot be written by this OpenCV; try a name in .avi.'
                )
            with (
                tqdm(
                    _read_frames(video, first, stop),
                    total=stop - first,
                    unit='frame',
                    desc=Path(out).name,
                    disable=not show_progress,
                ) as frames,
                # Else a line of the log would go into the middle of the bar.
                logging_redirect_tqdm([MMLogger.get_current_instance()]),
            ):
                for frame in annotated_frames(frames, keyframes):
                    writer.write(np.ascontiguousarray(frame[..., ::-1]))
        finally:
            writer.release()
        # The writer says nothing of a full disk.
        if cv2.VideoCapture(str(part)).get(cv2.CAP_PROP_FRAME_COUNT) != stop - first:
            raise UserError(f'{out} lacks frames after writing; is the disk full?')


def _read_frames(
    video: str | Path, first: int, stop: int
) -> Iterator[tuple[int, np.ndarray]]:
    reader = open_video(str(video))
    for index in range(first, stop):
        subject = f'{video}: frame {index} cannot be decoded'
        with blame(subject, 'fetch the video again or re-encode it'):
            if index == first:
                reader.seek_accurate(first)
            frame = reader.next().asnumpy()
        yield index, frame


def write_detections(
    path: str | Path, keyframes: Sequence[KeyframeDetections], *, video: str | Path
) -> None:
    """Write detections to a JSON or CSV file, by its suffix.

    JSON: ``{video, fps, width, height, keyframes: [{time_s, frame, persons: [{bbox,
    actions: [{action, score}]}]}]}``. CSV: a row per person and action; a person
    without an action has one row in which these columns are empty. Boxes are pixel
    xyxy.
    """
    records = [
        dict(
            time_s=round(found.time_s, 3),
            frame=found.frame_index,
            persons=[
                dict(
                    bbox=np.round(bbox, 2).tolist(),
                    actions=[
                        dict(action=label, score=round(score, 4))
                        for label, score in pairs
                    ],
                )
                for bbox, pairs in zip(found.bboxes, found.actions, strict=True)
            ],
        )
        for found in keyframes
    ]
    if Path(path).suffix.lower() == '.json':
        info = video_info(video)
        header = dict(video=str(video), fps=info.fps)
        size = dict(width=info.width, height=info.height)
        write_json(path, {**header, **size, 'keyframes': records})
        return
    with open_atomically(path, encoding='utf-8', newline='') as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for record in records:
            for person in record['persons']:
                place = (video, record['time_s'], record['frame'])
                for found in person['actions'] or [dict(action='', score='')]:
                    table.writerow([*place, *person['bbox'], *found.values()])
