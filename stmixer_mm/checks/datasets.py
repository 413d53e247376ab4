"""Go through the datasets of a config before hours are lost on them."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import mmcv
import numpy as np
from mmengine.config import Config

from stmixer_mm.checks.reports import Finding, SplitReport, split_place
from stmixer_mm.datasets.annotations.ava_csv import (
    MAX_ID,
    Fault,
    KeyframeRow,
    TimestampRow,
    read_label_names,
    read_timestamp_rows,
)
from stmixer_mm.datasets.annotations.tube_annotations import TubeAnnotations
from stmixer_mm.datasets.frames import (
    clip_indices,
    clip_span,
    count_decoded,
    describe_folder,
    find_source,
    frame_numbers,
    is_stretched,
    keyframe_index,
    open_video,
)
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.packing import read_proposals
from stmixer_mm.datasets.pipelines import plain_datasets
from stmixer_mm.datasets.transforms import OpenVideo, SampleKeyframeClip
from stmixer_mm.datasets.tube_dataset import TubeDataset
from stmixer_mm.errors import UserError, explain
from stmixer_mm.registry import DATASETS

SPLITS = ('train', 'val', 'test')
SMALL_SIDE = 0.01  # of the width or height; a box below it is probably a slip
SLOW_DECODING = 8  # frames decoded for one that a clip uses
IN_ORDER = 600  # frames that are at most decoded to check where jumps end
REENCODE = 'ffmpeg -i IN -g 4 -tune fastdecode -an OUT.mp4'

Progress = Callable[[Iterable], Iterable]


def check_config(
    cfg: Config,
    splits: Iterable[str] = SPLITS,
    *,
    decode: bool = True,
    allow_overlap: bool = False,
    progress: Progress = iter,
) -> list[SplitReport]:
    """Check the datasets of the dataloaders of a config.

    Args:
        cfg: A config with ``train_dataloader`` and so on; a split without one, or
            whose dataset was already checked, is passed over. Wrapped datasets are
            checked one by one.
        splits: Of 'train', 'val', 'test'.
        decode: Decode every keyframe; False only opens the videos.
        allow_overlap: Videos in both train and another split are warnings only.
        progress: Wraps the list of a split's videos, to show progress.

    Raises:
        ValueError: the config has no dataset for these splits.
    """
    reports, seen = [], []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for dataset in plain_datasets(loader and loader.get('dataset')):
            # Of tubes it says which videos are meant.
            kept = 'TubeDataset' in str(dataset.get('type'))
            essence = {k: v for k, v in dataset.items() if kept or k != 'test_mode'}
            if essence not in seen:
                seen.append(essence)
                reports.append(
                    check_dataset(dataset, split, decode=decode, progress=progress)
                )
    if not reports:
        wanted = ', '.join(f'{split}_dataloader' for split in splits)
        raise UserError(f'The config has no dataset in {wanted}; nothing to check.')
    _check_overlap(reports, is_error=not allow_overlap)
    return reports


def check_dataset(
    cfg: dict, name: str, *, decode: bool = True, progress: Progress = iter
) -> SplitReport:
    """Check one ``KeyframeDataset`` or ``TubeDataset``, given by its config."""
    report = SplitReport(name, str(cfg.get('ann_file', '')))
    dataset = _build_unread(cfg, report)
    if dataset is None:
        return report
    report.ann_file = dataset.ann_file
    if isinstance(dataset, TubeDataset):
        _check_tubes(dataset, report, decode, progress)
        return report
    names = _label_names(dataset, report)
    rows, others = _check_annotation(dataset, names, report)
    excluded = _timestamps(dataset.exclude_file, report)
    empty = _timestamps(dataset.empty_keyframes_file, report)
    annotated = {row.key: row.line for row in (*others, *rows)}
    for row in empty:
        if row.key in annotated:
            message = (
                f'keyframe {row.key} is listed as person-free, but '
                f'{dataset.ann_file} has a box there in line {annotated[row.key]}; '
                'remove one of them.'
            )
            file = dataset.empty_keyframes_file
            report.error('person-free', file, row.line, message)

    left_out = {row.key for row in excluded}
    report.num_excluded_keyframes = len(left_out & annotated.keys())
    num_left = len(annotated) - report.num_excluded_keyframes
    if annotated and not num_left and not empty:
        message = 'it excludes all keyframes; give the exclude file of this split.'
        report.error('excluded', dataset.exclude_file, None, message)
    elif excluded and num_left == len(annotated):
        message = 'it names no annotated keyframe; is it the file of this split?'
        report.warn('excluded', dataset.exclude_file, None, message)
    rows = [row for row in rows if row.key not in left_out]
    if dataset.test_mode:
        empty += [TimestampRow(row.line, row.video_id, row.timestamp) for row in others]
    with_person = {row.key for row in rows}
    empty = [row for row in empty if row.key not in left_out | with_person]
    _check_proposals(dataset, [row.key for row in (*rows, *empty)], report)
    _summarise(rows, empty, names, dataset, report)
    _check_videos(dataset, rows, empty, report, decode, progress)
    return report


def _build_unread(
    cfg: dict, report: SplitReport
) -> KeyframeDataset | TubeDataset | None:
    """The dataset before it reads its annotation, or None and a finding."""
    try:
        dataset = DATASETS.build({**cfg, 'lazy_init': True})
    except Exception as error:  # whatever a pipeline of the user's may raise
        text = explain(error) or str(error)
        lines = text.strip().splitlines() or [type(error).__name__]
        file, line, message = split_place(lines[0], report.ann_file)
        report.error('config', file, line, message)
        label_file = cfg.get('label_file')
        is_of_labels = label_file and file.endswith(label_file)
        if is_of_labels and not cfg.get('custom_classes'):
            # A broken label map need not hide the faults of the annotation.
            num_classes = cfg.get('num_classes') or MAX_ID + 1
            unlabelled = {**cfg, 'label_file': None, 'num_classes': num_classes}
            return _build_unread(unlabelled, report)
        return None
    if not isinstance(dataset, KeyframeDataset | TubeDataset):
        message = (
            f'{type(dataset).__name__} is neither a KeyframeDataset nor a '
            'TubeDataset: not checked.'
        )
        report.error('config', report.ann_file, None, message)
        return None
    return dataset


def _label_names(dataset: KeyframeDataset, report: SplitReport) -> dict[int, str]:
    """Name of each action id that the dataset takes."""
    in_file = read_label_names(dataset.label_file)
    if not in_file and not any(finding.kind == 'config' for finding in report.findings):
        message = 'the dataset has no label_file, so classes have no names.'
        report.warn('label map', dataset.ann_file, None, message)
    return {n: in_file.get(n, f'class {n}') for n in dataset.action_ids}


def _check_annotation(
    dataset: KeyframeDataset, names: dict[int, str], report: SplitReport
) -> tuple[list[KeyframeRow], list[KeyframeRow]]:
    """Findings of the single lines; the good ones, of the classes taken and others."""
    file = dataset.ann_file
    rows, faults = dataset.read_rows()
    for fault in faults:
        report.findings.append(Finding(True, 'line', fault))
    others = [row for row in rows if row.action_id not in names]
    rows = [row for row in rows if row.action_id in names]
    known = read_label_names(dataset.label_file)
    unnamed: dict[int, list[KeyframeRow]] = {}
    first_lines: dict[tuple, int] = {}
    for row in rows:
        if known and row.action_id not in known:
            unnamed.setdefault(row.action_id, []).append(row)
        same = (row.key, row.bbox_norm, row.action_id)
        if first_lines.setdefault(same, row.line) != row.line:
            message = (
                f'repeats line {first_lines[same]}: same keyframe, box and action; '
                'remove it, as evaluation would count it as missed.'
            )
            report.warn('duplicate', file, row.line, message)
        x1, y1, x2, y2 = row.bbox_norm
        if min(x2 - x1, y2 - y1) < SMALL_SIDE:
            message = (
                f'the box is only {x2 - x1:.3f} wide and {y2 - y1:.3f} high; is it '
                'a slip?'
            )
            report.warn('small box', file, row.line, message)
    for number, group in unnamed.items():
        message = (
            f'the action id {number}, here and in {len(group) - 1} other lines, is '
            f'not in {dataset.label_file}: it is trained, but not evaluated.'
        )
        report.warn('label map', file, group[0].line, message)
    return rows, others


def _timestamps(file: str | None, report: SplitReport) -> list[TimestampRow]:
    if file is None:
        return []
    rows, faults = read_timestamp_rows(file)
    for fault in faults:
        report.findings.append(Finding(True, 'line', fault))
    return rows


def _summarise(
    rows: list[KeyframeRow],
    empty: list[TimestampRow],
    names: dict[int, str],
    dataset: KeyframeDataset,
    report: SplitReport,
) -> None:
    empty_keys = {row.key for row in empty}
    report.num_empty_keyframes = len(empty_keys)
    report.num_keyframes = len({row.key for row in rows}) + len(empty_keys)
    report.num_boxes = len({(row.key, row.bbox_norm) for row in rows})
    counts = Counter(row.action_id for row in rows)
    report.class_counts = {name: counts[number] for number, name in names.items()}
    known = read_label_names(dataset.label_file)
    absent = [known[n] for n in names if n in known and not counts[n]]
    if absent and rows:
        message = f'no box does: {", ".join(absent)}.'
        report.warn('absent class', dataset.ann_file, None, message)


def _check_videos(
    dataset: KeyframeDataset,
    rows: list[KeyframeRow],
    empty: list[TimestampRow],
    report: SplitReport,
    decode: bool,
    progress: Progress,
) -> None:
    """Findings of the files, and of the keyframes in each of them."""
    keyframes: dict[str, dict[str, tuple[str, int, float]]] = {}
    for file, group in (
        (dataset.ann_file, rows),
        (dataset.empty_keyframes_file, empty),
    ):
        for row in group:
            place = (file, row.line, row.timestamp)
            keyframes.setdefault(row.video_id, {}).setdefault(row.key, place)
    report.num_videos = len(keyframes)
    num_frames = dataset.num_frames
    slow = []
    for video_id in progress(list(keyframes)):
        places = list(keyframes[video_id].values())
        file, line, _ = places[0]
        source = _open(
            dataset, video_id, file, line, report, num_frames, fps=dataset.fps
        )
        if source is None:
            continue
        indices = _check_keyframes(dataset, source, places, report, decode)
        if isinstance(source, _Video):
            if decode:
                _check_jumps(source, file, line, report)
            decoding = _decoding(dataset, source, indices, file, line)
            if decoding is not None and decoding.factor > SLOW_DECODING:
                slow.append(decoding)
    if slow:
        _warn_of_slow_decoding(slow, report)


class _Video:
    """A video file: how long it is, and which of its frames can be decoded."""

    size: tuple[int, int] | None = None  # h, w of the last frame decoded

    def __init__(self, path: str) -> None:
        self.path = path
        self._reader = open_video(path)
        self.total_frames = len(self._reader)
        self.fps = self._reader.get_avg_fps()
        self.key_inds = self._reader.get_key_indices()

    def picture(self, index: int, *, jump: bool) -> np.ndarray:
        """Frame that a clip gets for an index, or that comes when playing up to it."""
        reader = open_video(self.path)
        if jump:
            return reader.get_batch([index]).asnumpy()[0]
        for _ in range(index):
            reader.next()
        return reader.next().asnumpy()

    def decodes(self, index: int) -> bool:
        try:
            self._reader.seek_accurate(index)
            self.size = self._reader.next().shape[:2]
        except Exception:  # DECORDError is a plain Exception
            return False
        return True


class _Frames:
    """A folder of extracted frames."""

    size: tuple[int, int] | None = None  # h, w of the last frame decoded

    def __init__(
        self, path: str, tmpl: str, start: int, num_frames: int | None, fps: float
    ) -> None:
        self.path, self.fps = path, fps
        self._start, self._tmpl = start, tmpl
        numbers = frame_numbers(path, tmpl, start)
        self.total_frames = num_frames or numbers[-1] - start + 1
        wanted = range(self._start, self._start + self.total_frames)
        gaps = sorted(set(wanted) - set(numbers))
        if gaps:
            raise UserError(
                f'{path} lacks {len(gaps)} of its {self.total_frames} frames, first '
                f'{self._tmpl.format(gaps[0])}; extract them again.'
            )

    def decodes(self, index: int) -> bool:
        file = os.path.join(self.path, self._tmpl.format(index + self._start))
        try:
            picture = mmcv.imread(file)
        except Exception:  # FileNotFoundError, and cv2.error of an empty file
            return False
        if picture is not None:
            self.size = picture.shape[:2]
        return picture is not None


def _open(
    dataset: KeyframeDataset | TubeDataset,
    video_id: str,
    file: str,
    line: int | None,
    report: SplitReport,
    num_frames: int | None,
    *,
    fps: float,
) -> _Video | _Frames | None:
    """A video, or None and a finding; num_frames and fps are of extracted frames."""
    folder = dataset.data_prefix['img']
    path = find_source(folder, video_id, use_frames=dataset.use_frames)
    report.videos[video_id] = path or os.path.join(folder, video_id)
    report.first_lines[video_id] = line
    if path is None:
        what = 'frame folder' if dataset.use_frames else 'video'
        message = (
            f'the {what} of {video_id!r} is missing in {describe_folder(folder)}; put it '
            'there, or correct data_prefix or the name.'
        )
        report.error('missing', file, line, message)
        return None
    try:
        if not dataset.use_frames:
            return _Video(path)
        return _Frames(
            path, dataset.filename_tmpl, dataset.start_index, num_frames, fps
        )
    except (OSError, ValueError) as error:
        report.error('unreadable', file, line, explain(error) or str(error))
        return None


def _check_tubes(
    dataset: TubeDataset, report: SplitReport, decode: bool, progress: Progress
) -> None:
    """Findings of a dataset of tubes: its annotation, then each of its videos."""
    file = dataset.ann_file
    try:
        truth, videos = dataset.read_annotations()
    except (OSError, ValueError) as error:
        message = str(error).removeprefix(f'{file}: ').removeprefix(f'{file} ')
        report.error('annotation', file, None, message)
        return
    report.num_videos = len(videos)
    keys = []
    counts = np.zeros(len(truth.labels) + 1, dtype=int)
    slow = []
    for video_id in progress(list(videos)):
        infos, num_beyond = dataset.keyframes(truth, video_id, '')
        keys += [info['img_key'] for info in infos]
        labels = [info['ann'][1] for info in infos]
        report.num_keyframes += len(infos)
        report.num_empty_keyframes += sum(not len(rows) for rows in labels)
        report.num_boxes += sum(map(len, labels))
        counts += sum((rows.sum(axis=0) for rows in labels), np.zeros_like(counts))
        num_frames = truth.nframes[video_id]
        if num_beyond:
            message = (
                f'{num_beyond} boxes of {video_id} lie beyond its {num_frames} frames; '
                'they are left out.'
            )
            report.warn('beyond the end', file, None, message)
        _check_inside(truth, video_id, file, report)
        source = _open(dataset, video_id, file, None, report, num_frames, fps=1)
        if source is None:
            continue
        if isinstance(source, _Video) and source.total_frames != num_frames:
            message = (
                f'{source.path} has {source.total_frames} frames, but the annotation '
                f'is of {num_frames}; boxes may belong to other frames.'
            )
            report.warn('length', file, None, message)
        _check_length(dataset, source, file, None, report)
        indices = [info['frame_index'] for info in infos]
        bad = [
            index
            for index in indices
            if index >= source.total_frames or (decode and not source.decodes(index))
        ]
        if bad:
            message = (
                f'{len(bad)} keyframes of {source.path} are missing or damaged, first '
                f'frame {bad[0] + 1}; fetch, extract or encode the video again.'
            )
            report.error('unreadable', file, None, message)
        _check_shape(truth.resolution[video_id], source, file, report)
        if isinstance(source, _Video):
            if decode:
                _check_jumps(source, file, None, report)
            indices = [index for index in indices if index < source.total_frames]
            decoding = _decoding(dataset, source, indices, file, None)
            if decoding is not None and decoding.factor > SLOW_DECODING:
                slow.append(decoding)
    _check_proposals(dataset, keys, report)
    if slow:
        _warn_of_slow_decoding(slow, report)
    report.class_counts = dict(zip(truth.labels, counts[1:].tolist(), strict=True))
    absent = [name for name, count in report.class_counts.items() if not count]
    if not report.num_boxes:
        message = (
            f'no box is in the videos of split {dataset.split}; give another split or '
            'file.'
        )
        report.error('annotation', file, None, message)
    elif absent:
        report.warn('absent class', file, None, f'no box does: {", ".join(absent)}.')


def _check_proposals(
    dataset: KeyframeDataset | TubeDataset, keys: list[str], report: SplitReport
) -> None:
    if dataset.proposal_file is None:
        return
    try:
        read_proposals(dataset.proposal_file, list(dict.fromkeys(keys)))
    except (OSError, ValueError) as error:
        file = dataset.proposal_file
        message = str(error).removeprefix(f'{file}: ').removeprefix(f'{file} ')
        report.error('proposals', file, None, message)


def _check_inside(
    truth: TubeAnnotations, video_id: str, file: str, report: SplitReport
) -> None:
    """Whether the centres of the boxes of a video lie in its picture."""
    tubes = [tube for group in truth.gttubes[video_id].values() for tube in group]
    rows = np.concatenate([np.zeros((0, 5)), *tubes])
    height, width = truth.resolution[video_id]
    centres = (rows[:, 1:3] + rows[:, 3:]) / 2
    outside = ((centres < 0) | (centres > (width, height))).any(axis=1)
    if outside.any():
        row = rows[outside][0]
        shown = ', '.join(f'{value:g}' for value in row[1:])
        message = (
            f'{outside.sum()} boxes of {video_id} lie outside its picture of {width} x '
            f'{height}, first ({shown}) in frame {row[0]:g}; correct them or its '
            "'resolution', which is (height, width)."
        )
        report.warn('outside', file, None, message)


def _check_shape(
    resolution: tuple[int, int],
    source: _Video | _Frames,
    file: str,
    report: SplitReport,
) -> None:
    """Whether frames have the shape, if not the size, that the boxes were drawn in."""
    if source.size is None:
        return
    (height, width), (real_height, real_width) = resolution, source.size
    if is_stretched(resolution, source.size):
        message = (
            f'{source.path} is {real_width} x {real_height}, but its boxes are of a '
            f"picture of {width} x {height}; correct its 'resolution', which is "
            '(height, width), unless the frames were stretched.'
        )
        report.warn('shape', file, None, message)


def _check_keyframes(
    dataset: KeyframeDataset,
    source: _Video | _Frames,
    places: list[tuple[str, int, float]],
    report: SplitReport,
    decode: bool,
) -> list[int]:
    """Whether the clips fit into the video and the keyframes can be read.

    Returns the frames that the keyframes are.
    """
    file, line, _ = places[0]
    _check_length(dataset, source, file, line, report)
    indices = []
    for file, line, timestamp in sorted(places, key=lambda place: place[2]):
        try:
            index = keyframe_index(
                timestamp,
                fps=source.fps,
                total_frames=source.total_frames,
                timestamp_start=dataset.timestamp_start,
            )
        except ValueError as error:
            report.error('timestamp', file, line, f'{source.path}: {error}.')
            continue
        indices.append(index)
        if decode and not source.decodes(index):
            message = (
                f'frame {index} of {source.path}, at {timestamp:g} s, is missing or '
                'damaged; fetch or encode the video again.'
            )
            report.error('unreadable', file, line, message)
    return indices


def _check_length(
    dataset: KeyframeDataset | TubeDataset,
    source: _Video | _Frames,
    file: str,
    line: int | None,
    report: SplitReport,
) -> None:
    sampler = _transform(dataset, SampleKeyframeClip)
    if sampler is None or sampler.allow_short:
        return
    span = clip_span(sampler.clip_len, sampler.frame_interval)
    if source.total_frames < span:
        message = (
            f'{source.path} has {source.total_frames} frames, fewer than the {span} of '
            'a clip; use a longer video, a smaller clip, or allow_short=True.'
        )
        report.error('short video', file, line, message)


def _transform(dataset: KeyframeDataset | TubeDataset, kind: type) -> object | None:
    transforms = dataset.pipeline.transforms
    return next((part for part in transforms if isinstance(part, kind)), None)


def _check_jumps(
    video: _Video, file: str, line: int | None, report: SplitReport
) -> None:
    """Whether its index leads to the right frames: not so in many a cut video."""
    key = next(iter(video.key_inds[1:]), None)
    if key is None or key > IN_ORDER:
        return
    try:
        jumped, played = (video.picture(key, jump=jump) for jump in (True, False))
    except Exception:  # DECORDError is a plain Exception
        return  # damaged frames are told of where they are keyframes
    if not np.array_equal(jumped, played):
        message = (
            f'a jump to frame {key} of {video.path} ends at another frame, so that '
            f'clips would show the wrong moment; re-encode the video ({REENCODE}).'
        )
        report.error('jumps', file, line, message)


class _Decoding(NamedTuple):
    """What the clips of a video take."""

    factor: float  # frames decoded for one that is used
    frames: float  # decoded for a clip
    path: str
    file: str
    line: int | None


def _decoding(
    dataset: KeyframeDataset | TubeDataset,
    video: _Video,
    indices: list[int],
    file: str,
    line: int | None,
) -> _Decoding | None:
    """None when there are no clips, or each frame is decoded but once."""
    sampler = _transform(dataset, SampleKeyframeClip)
    opener = _transform(dataset, OpenVideo)
    if sampler is None or not indices or (opener and opener.keep_frames):
        return None
    clips = [
        clip_indices(
            index,
            clip_len=sampler.clip_len,
            frame_interval=sampler.frame_interval,
            total_frames=video.total_frames,
        )
        for index in indices
    ]
    used = sum(len(set(clip.tolist())) for clip in clips)
    decoded = sum(count_decoded(clip, video.key_inds) for clip in clips)
    return _Decoding(decoded / used, decoded / len(clips), video.path, file, line)


def _warn_of_slow_decoding(slow: list[_Decoding], report: SplitReport) -> None:
    """One warning for all videos, of the slowest."""
    worst = max(slow)
    number = f' ({len(slow)} such videos)' if len(slow) > 1 else ''
    message = (
        f'a clip of {worst.path} decodes {worst.frames:.0f} frames, {worst.factor:.0f} '
        f'times those it uses, as its key frames are far apart{number}; re-encode the '
        f'video ({REENCODE}) or extract its frames.'
    )
    report.warn('slow decoding', worst.file, worst.line, message)


def _place(report: SplitReport, video_id: str) -> str:
    line = report.first_lines[video_id]
    return report.ann_file if line is None else f'{report.ann_file}, line {line}'


def _check_overlap(reports: list[SplitReport], *, is_error: bool) -> None:
    """Videos that are both trained on and evaluated, told by their file."""
    trained = {
        os.path.realpath(path): _place(report, name)
        for report in reports
        if report.name == 'train'
        for name, path in report.videos.items()
    }
    for report in reports:
        if report.name == 'train':
            continue
        for name, path in report.videos.items():
            place = trained.get(os.path.realpath(path))
            if place is not None:
                message = (
                    f'the video {name!r} is trained on too ({place}); remove it from '
                    'one of the splits.'
                )
                fault = Fault(report.ann_file, report.first_lines[name], message)
                report.findings.append(Finding(is_error, 'overlap', fault))
