"""What is wrong with the annotation of a dataset, line by line."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from stmixer_mm.checks.reports import Place, Report
from stmixer_mm.datasets.annotations.ava_csv import (
    KeyframeRow,
    TimestampRow,
    read_label_names,
    read_timestamp_rows,
)
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.tube_dataset import TubeDataset

SMALL_SIDE = 0.01  # of the width or height; a box below it is probably a slip


class Annotated(NamedTuple):
    """What an annotation says of its videos."""

    videos: dict[str, Place]  # where each is first named
    keyframes: dict[str, Place]  # by key; tubes have no lines
    num_frames: dict[str, int]  # of videos with tubes
    sizes: dict[str, tuple[int, int]]  # (h, w) of videos with tubes


def check_csv(dataset: KeyframeDataset, report: Report) -> Annotated:
    """Findings of the lines of all csv files of a dataset."""
    rows, faults = dataset.read_rows()
    report.add_faults(faults)
    taken = [row for row in rows if row.action_id in dataset.action_ids]
    _warn_of_rows(taken, dataset, report)
    lines = {row.key: row.line for row in rows}

    empty_file = dataset.empty_keyframes_file
    empty = _timestamps(empty_file, report)
    for row in empty:
        if row.key in lines:
            message = (
                f'keyframe {row.key} is listed as person-free, but {dataset.ann_file} '
                f'has a box there in line {lines[row.key]}; remove one of them.'
            )
            report.error('person-free', (empty_file, row.line), message)
    excluded = {row.key for row in _timestamps(dataset.exclude_file, report)}
    report.num_excluded_keyframes = len(excluded & lines.keys())
    if excluded and not report.num_excluded_keyframes:
        message = 'it names no annotated keyframe; is it the file of this split?'
        report.warn('excluded', (dataset.exclude_file, None), message)

    annotated = Annotated({}, {}, {}, {})
    tested = rows if dataset.test_mode else taken
    for file, group in ((dataset.ann_file, tested), (empty_file, empty)):
        for row in group:
            annotated.videos.setdefault(row.video_id, (file, row.line))
            annotated.keyframes.setdefault(row.key, (file, row.line))
    return annotated


def _timestamps(file: str | None, report: Report) -> list[TimestampRow]:
    rows, faults = read_timestamp_rows(file)
    report.add_faults(faults)
    return rows


def _warn_of_rows(
    rows: list[KeyframeRow], dataset: KeyframeDataset, report: Report
) -> None:
    file, labels = dataset.ann_file, read_label_names(dataset.label_file)
    unnamed: dict[int, list[int]] = defaultdict(list)
    first_lines: dict[tuple, int] = {}
    for row in rows:
        if labels and row.action_id not in labels:
            unnamed[row.action_id].append(row.line)
        same = (row.key, row.bbox_norm, row.action_id)
        if first_lines.setdefault(same, row.line) != row.line:
            message = (
                f'repeats line {first_lines[same]}: same keyframe, box and action; '
                'remove it, as evaluation would count it as missed.'
            )
            report.warn('duplicate', (file, row.line), message)
        x1, y1, x2, y2 = row.bbox_norm
        if min(x2 - x1, y2 - y1) < SMALL_SIDE:
            message = (
                f'the box is {x2 - x1:.3f} wide, {y2 - y1:.3f} high; is it a slip?'
            )
            report.warn('small box', (file, row.line), message)
    for number, lines in unnamed.items():
        message = (
            f'the action id {number}, here and in {len(lines) - 1} other lines, is '
            f'not in {dataset.label_file}: it is trained, but not evaluated.'
        )
        report.warn('label map', (file, lines[0]), message)


def check_tubes(dataset: TubeDataset, report: Report) -> Annotated:
    """Findings of a file of tubes, in the videos of the split.

    Raises:
        UserError: the file cannot be read.
    """
    place = (dataset.ann_file, None)
    tubes, videos = dataset.read_annotations()
    for name in videos:
        groups = tubes.gttubes[name].values()
        rows = np.concatenate(
            [np.zeros((0, 5)), *(tube for one in groups for tube in one)]
        )
        height, width = tubes.resolution[name]
        centres = (rows[:, 1:3] + rows[:, 3:]) / 2
        outside = rows[((centres < 0) | (centres > (width, height))).any(axis=1)]
        if len(outside):
            frame, *box = (f'{value:g}' for value in outside[0])
            message = (
                f'{len(outside)} boxes of {name} lie outside its picture of {width} x '
                f'{height}, first ({", ".join(box)}) in frame {frame}; correct them or '
                "its 'resolution', which is (height, width)."
            )
            report.warn('outside', place, message)
    places = dict.fromkeys(videos, place)
    return Annotated(places, {}, tubes.nframes, tubes.resolution)
