"""Go through the datasets of a config before hours are lost on them."""

import os
from collections.abc import Iterable

import numpy as np
from mmengine.config import Config

from stmixer_mm.checks.annotations import check_csv, check_tubes
from stmixer_mm.checks.config import SPLITS
from stmixer_mm.checks.reports import Report
from stmixer_mm.checks.videos import Progress, check_videos, find_videos
from stmixer_mm.datasets.annotations.ava_csv import read_label_names
from stmixer_mm.datasets.person_dataset import PersonDataset
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.datasets.tube_dataset import TubeDataset
from stmixer_mm.errors import UserError
from stmixer_mm.registry import DATASETS


def check_config(
    cfg: Config,
    splits: Iterable[str] = SPLITS,
    *,
    decode: bool = True,
    allow_overlap: bool = False,
    progress: Progress = iter,
) -> list[Report]:
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
        UserError: the config has no dataset for these splits.
    """
    reports, seen = [], []
    for split in splits:
        for dataset in dataset_configs(cfg, split):
            # In tubes test_mode says which videos are meant.
            is_of_tubes = 'Tube' in str(dataset.get('type'))
            kept = dict(dataset) if is_of_tubes else {**dataset, 'test_mode': None}
            if kept not in seen:
                seen.append(kept)
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
) -> Report:
    """Check one ``KeyframeDataset`` or ``TubeDataset``, given by its config.

    First the lines of its files and where its videos are; then, if these are in order,
    the videos themselves.
    """
    report = Report(name, str(cfg.get('ann_file', '')))
    with report.noting('config', 'the dataset cannot be built'):
        dataset = DATASETS.build({**cfg, 'lazy_init': True})
        if not isinstance(dataset, PersonDataset):
            raise UserError(
                f'{type(dataset).__name__} is neither a KeyframeDataset nor a '
                'TubeDataset: not checked.'
            )
        report.ann_file = dataset.ann_file
    if report.num_errors:
        return report
    with report.noting('annotation', 'the dataset cannot be read'):
        check = check_tubes if isinstance(dataset, TubeDataset) else check_csv
        annotated = check(dataset, report)
        find_videos(dataset, annotated.videos, report)
        if not report.num_errors:
            dataset.full_init()
    if not report.num_errors:
        _count(dataset, report)
        check_videos(dataset, annotated, report, decode=decode, progress=progress)
    return report


def _count(dataset: PersonDataset, report: Report) -> None:
    counts = np.zeros(dataset.num_classes, dtype=int)
    report.num_keyframes = len(dataset)
    for index in range(len(dataset)):
        labels = dataset.get_data_info(index)['gt_labels']
        if labels.shape[1] == 1:  # numbers of classes (multilabel=False)
            labels = np.eye(dataset.num_classes)[labels[:, 0]]
        counts += labels.sum(axis=0).astype(int)
        report.num_boxes += len(labels)
        report.num_empty_keyframes += not len(labels)
    names = dataset.metainfo['classes']
    report.class_counts = dict(zip(names, counts[1:].tolist(), strict=True))
    known = read_label_names(getattr(dataset, 'label_file', None)).values() or names
    absent = [name for name in known if report.class_counts.get(name) == 0]
    if absent:
        message = f'no box has the actions {", ".join(absent)}.'
        report.warn('absent class', (dataset.ann_file, None), message)


def _check_overlap(reports: list[Report], *, is_error: bool) -> None:
    """Videos that are both trained on and evaluated, known by their file."""
    trained = {}
    for report in reports:
        find = report.error if is_error else report.warn
        for name, path in report.videos.items():
            file, line = os.path.realpath(path), report.first_lines[name]
            if report.name == 'train':
                trained[file] = report.ann_file, line
            elif file in trained:
                where, first = trained[file]
                message = (
                    f'the video {name!r} is trained on too, as {where} says'
                    f'{f" in line {first}" if first else ""}; remove it from one of '
                    'the splits.'
                )
                find('overlap', (report.ann_file, line), message)
