"""Check the datasets of a config, before a training stops at their first fault."""

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import reduce

import numpy as np
from mmengine.config import Config
from mmengine.utils import track_iter_progress

from stmixer_mm.apis.config import SPLITS
from stmixer_mm.datasets.annotations.ava_csv import read_timestamp_rows
from stmixer_mm.datasets.frames import find_source, frame_numbers
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.person_dataset import PersonDataset
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.datasets.transforms import (
    DecodeFrameFiles,
    DecodeFrames,
    OpenVideo,
    SampleKeyframeClip,
)
from stmixer_mm.errors import UserError, blame
from stmixer_mm.projects.data_checks.reports import Place, Report
from stmixer_mm.registry import DATASETS, MODELS


def check_config(
    cfg: Config, splits: Iterable[str] = SPLITS, *, decode: bool = True
) -> list[Report]:
    """Check the datasets of the dataloaders of a config.

    Args:
        cfg: A config with ``train_dataloader`` and so on; a split without one, or
            whose dataset was already checked, is passed over. Wrapped datasets are
            checked one by one.
        splits: Of 'train', 'val', 'test'.
        decode: Decode the frames of all clips; False only opens the videos.

    Raises:
        UserError: the config has no dataset for these splits.
    """
    reports, checked_datasets = [], []
    for split in splits:
        for dataset in dataset_configs(cfg, split):
            if dataset not in checked_datasets:
                checked_datasets.append(dataset)
                reports.append(check_dataset(dataset, split, decode=decode))
    if not reports:
        raise UserError(f'The config has no dataset for {splits}; nothing to check.')
    _check_overlap(reports)
    _check_classes(cfg, reports)
    return reports


def check_dataset(cfg: dict, name: str, *, decode: bool = True) -> Report:
    """Check one ``KeyframeDataset`` or ``TubeDataset``, given by its config.

    First the lines of its files and where its videos are; then the videos themselves, as
    far as lines without a fault name them.
    """
    report = Report(name, str(cfg.get('ann_file', '')))
    num_frames = {}
    try:
        with blame('the dataset cannot be checked', 'correct it in the config'):
            dataset = DATASETS.build({**cfg, 'lazy_init': True})
            report.ann_file = dataset.ann_file
            if isinstance(dataset, KeyframeDataset):
                videos = _check_csv(dataset, report)
            else:
                truth, names = dataset.read_truth()
                videos, num_frames = dict.fromkeys(names, report.place()), truth.nframes
            _find_videos(dataset, videos, report)
            dataset.skips_faults = bool(report.num_errors)
            dataset.full_init()
    except UserError as error:
        if not report.num_errors:  # else no keyframe may be left
            report.error('dataset', report.place(), str(error))
    else:
        _count(dataset, report)
        check_videos(dataset, num_frames, report, decode=decode)
    return report


def _check_csv(dataset: KeyframeDataset, report: Report) -> dict[str, Place]:
    """Note the faults of all lines; where each video is first named."""
    rows, faults = dataset.read_rows()
    empty, faults_of_empty = read_timestamp_rows(dataset.empty_keyframes_file)
    excluded, faults_of_excluded = read_timestamp_rows(dataset.exclude_file)
    for file, line, message in (*faults, *faults_of_empty, *faults_of_excluded):
        report.error('line', (file, line), message)
    if excluded and {row.key for row in excluded}.isdisjoint(row.key for row in rows):
        message = 'it names no annotated keyframe; is it the file of this split?'
        report.warn('excluded', (dataset.exclude_file, None), message)
    first_lines: dict[tuple, int] = {}
    for row in rows:
        same = (row.key, row.bbox_norm, row.action_id)
        if first_lines.setdefault(same, row.line) != row.line:
            message = (
                f'repeats line {first_lines[same]}: same keyframe, box and action; '
                'remove it, as evaluation would count it as missed.'
            )
            report.warn('duplicate', (dataset.ann_file, row.line), message)
    videos: dict[str, Place] = {}
    files = dataset.ann_file, dataset.empty_keyframes_file
    for file, group in zip(files, (rows, empty), strict=True):
        for row in group:
            videos.setdefault(row.video_id, (file, row.line))
            report.places.setdefault(row.key, (file, row.line))
    return videos


def _find_videos(
    dataset: PersonDataset, videos: dict[str, Place], report: Report
) -> None:
    """Note where each video is, or that it is missing."""
    folder = dataset.data_prefix['img']
    report.places |= videos
    for name, place in videos.items():
        path = find_source(folder, name, use_frames=dataset.use_frames)
        report.videos[name] = path or os.path.join(folder, name)
        if path is None:
            message = (
                f'{report.videos[name]} is missing; put it there, or correct its name.'
            )
            report.error('missing', place, message)


def _count(dataset: PersonDataset, report: Report) -> None:
    counts = np.zeros(dataset.num_classes, dtype=int)
    report.num_keyframes = len(dataset)
    for index in range(len(dataset)):
        labels = dataset.get_data_info(index)['gt_labels']
        counts += labels.sum(axis=0).astype(int)
        report.num_boxes += len(labels)
        report.num_empty_keyframes += not len(labels)
    names = dataset.metainfo['classes']
    report.class_counts = dict(zip(names, counts[1:].tolist(), strict=True))


def _check_classes(cfg: Config, reports: list[Report]) -> None:
    """Compare the model's number of classes, if the config tells it, with the data's."""
    with blame('The model of the config cannot be checked', 'correct it'):
        kind = (cfg.get('model') or {}).get('type')
        kind = MODELS.get(kind) if isinstance(kind, str) else kind
        key = getattr(kind, 'num_classes_key', '')
        number = reduce(lambda node, name: node.get(name, {}), key.split('.'), cfg)
    for report in reports:
        num_classes = len(report.class_counts) + 1
        if report.class_counts and number and number != num_classes:
            message = (
                f'it has {num_classes} classes, the dummy class 0 among them, but {key} '
                f'is {number}; set that to {num_classes}, or correct the label file.'
            )
            report.error('classes', report.place(), message)


def _check_overlap(reports: list[Report]) -> None:
    """Videos that are both trained on and evaluated, known by their file."""
    trained: dict[str, Place] = {}
    for report in reports:
        for name, path in report.videos.items():
            file, place = os.path.realpath(path), report.place(name)
            if report.name == 'train':
                trained[file] = place
            elif file in trained:
                where, line = trained[file]
                message = (
                    f'the video {name!r} is trained on too, in {where}'
                    f'{f", line {line}" if line else ""}; remove it from one of the '
                    'splits.'
                )
                report.warn('overlap', place, message)


def check_videos(
    dataset: PersonDataset,
    num_frames: Mapping[str, int],
    report: Report,
    *,
    decode: bool,
) -> None:
    """Open all videos of a dataset and, with ``decode``, decode their clips.

    Args:
        dataset: Of which all samples are checked.
        num_frames: Of the annotated videos, as far as the annotation tells them.
        report: Takes the findings.
        decode: Whether to read the frames.
    """
    samples = defaultdict(list)
    for index in range(len(dataset)):
        samples[dataset.get_data_info(index)['video_id']].append(index)
    report.num_videos = len(samples)
    for name in track_iter_progress(list(samples), file=sys.stderr):
        infos = [dataset.get_data_info(index) for index in samples[name]]
        try:
            video = _open(infos[0])
        except UserError as error:
            report.error('unreadable', report.place(name), str(error))
            continue
        total_frames, annotated_frames = video['total_frames'], num_frames.get(name)
        if annotated_frames not in (None, total_frames):
            message = (
                f'{infos[0][dataset.path_key]} has {total_frames} frames, but the '
                f'annotation is of {annotated_frames}; boxes may belong to other frames.'
            )
            report.warn('length', report.place(name), message)
        _check_keyframes(dataset, [info | video for info in infos], report, decode)


def _open(info: dict) -> dict:
    """Keys that opening the video of a sample sets; its frames must have no gaps."""
    if 'filename' in info:
        return OpenVideo().transform(dict(filename=info['filename']))
    folder, start = info['frame_dir'], info['start_index']
    numbers = frame_numbers(folder, info['filename_tmpl'], start)
    total = info.get('total_frames') or numbers[-1] - start + 1
    if gaps := sorted(set(range(start, start + total)) - set(numbers)):
        first = info['filename_tmpl'].format(gaps[0])
        raise UserError(
            f'{folder} lacks {len(gaps)} of its {total} frames, first {first}; extract '
            'them again.'
        )
    return dict(total_frames=total)


def _check_keyframes(
    dataset: PersonDataset, infos: list[dict], report: Report, decode: bool
) -> None:
    """Check that clips fit in and can be read, each fault and line once."""
    # Without a sampler of ours only the keyframes are looked at.
    sampler = dataset.find_transform(SampleKeyframeClip) or SampleKeyframeClip(1, 1)
    decoder = DecodeFrameFiles() if dataset.use_frames else DecodeFrames()
    faults_and_places, sound = set(), np.array([], int)  # frames
    for info in sorted(infos, key=lambda info: info['timestamp']):
        kind = 'clip'
        try:
            clip = sampler.transform(dict(info))
            kind = 'unreadable'
            if decode:
                frames = np.setdiff1d(clip['frame_inds'], sound)
                if len(frames):
                    decoder.transform(dict(clip, frame_inds=frames))
                    sound = np.union1d(sound, frames)
        except UserError as error:
            place = report.place(info['img_key'], info['video_id'])
            if faults_and_places.isdisjoint((str(error), place)):
                report.error(kind, place, str(error))
            faults_and_places |= {str(error), place}
