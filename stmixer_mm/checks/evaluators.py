"""Whether the evaluators of a config are of the data that it predicts."""

import inspect
from collections.abc import Iterable, Sequence

from mmengine.config import Config

from stmixer_mm.checks.datasets import SPLITS
from stmixer_mm.checks.reports import Report, split_place
from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.pipelines import plain_datasets
from stmixer_mm.datasets.tube_dataset import TubeDataset
from stmixer_mm.errors import explain
from stmixer_mm.evaluation.metrics.tube_metrics import (
    TubeFrameMAPMetric,
    VideoMAPMetric,
)
from stmixer_mm.evaluation.results.results import OwnMetric
from stmixer_mm.registry import DATASETS, METRICS

OwnDataset = KeyframeDataset | TubeDataset


def check_evaluators(cfg: Config, splits: Iterable[str] = SPLITS) -> list[Report]:
    """Compare each metric of ours with the dataset whose predictions it gets.

    Args:
        cfg: A config with ``val_evaluator``, ``val_dataloader`` and so on. What was
            already compared is passed over, and so are metrics of others.
        splits: Of 'train', 'val', 'test'.

    Returns:
        A report for each metric with findings.
    """
    reports, seen = [], []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        evaluator = cfg.get(f'{split}_evaluator')
        pair = (loader and loader.get('dataset'), evaluator)
        if None in pair or pair in seen:
            continue
        seen.append(pair)
        datasets = _build_datasets(pair[0])
        for metric_cfg in _listed(evaluator):
            report = Report(f'{split}_evaluator', _source(metric_cfg))
            metric = _build_metric(metric_cfg, report)
            if metric is not None and datasets:
                _check_classes(metric, datasets, report)
                _check_keyframes(metric, datasets, report)
            if report.findings:
                reports.append(report)
    return reports


def _listed(evaluator: dict | Sequence[dict]) -> list[dict]:
    """The metrics, also of ``dict(type='Evaluator', metrics=...)``."""
    if isinstance(evaluator, dict):
        evaluator = evaluator.get('metrics', evaluator)
    return [evaluator] if isinstance(evaluator, dict) else list(evaluator)


def _source(metric_cfg: dict) -> str:
    files = metric_cfg.get('ann_file') or metric_cfg.get('type')
    return ', '.join(map(str, files if isinstance(files, list | tuple) else [files]))


def _build_metric(cfg: dict, report: Report) -> OwnMetric | None:
    """None for metrics of others, which may read or need anything."""
    kind = cfg.get('type')
    kind = METRICS.get(kind) if isinstance(kind, str) else kind
    if inspect.isclass(kind) and not issubclass(kind, OwnMetric):
        return None
    try:
        return METRICS.build(cfg)
    except Exception as error:  # a class that somebody derived may raise anything
        text = explain(error) or str(error) or type(error).__name__
        file, line, message = split_place(text.splitlines()[0], report.ann_file)
        report.error('evaluator', file, line, message)
        return None


def _build_datasets(cfg: dict) -> list[OwnDataset]:
    """Those inside of wrappers; none if any is broken, or of others."""
    try:
        datasets = [DATASETS.build(plain) for plain in plain_datasets(cfg)]
    except Exception:  # told by the check of the dataset
        return []
    is_ours = all(isinstance(dataset, OwnDataset) for dataset in datasets)
    return datasets if is_ours else []


def _check_classes(
    metric: OwnMetric, datasets: Iterable[OwnDataset], report: Report
) -> None:
    for dataset in datasets:
        if dataset.num_classes != metric.num_classes:
            message = (
                f'{type(metric).__name__} expects num_classes={metric.num_classes}, '
                f'the dataset of {dataset.ann_file} has {dataset.num_classes}, the dummy '
                'class 0 included; give both the same.'
            )
            report.error('classes', report.ann_file, None, message)
        elif _action_ids(dataset) != _action_ids(metric):
            message = (
                f'{type(metric).__name__} and the dataset of {dataset.ann_file} take '
                'other classes, or in another order; give both the same '
                'custom_classes, or the same file.'
            )
            report.error('classes', report.ann_file, None, message)


def _action_ids(part: OwnMetric | OwnDataset) -> list:
    """What the score columns 1, 2, ... stand for."""
    if isinstance(part, TubeFrameMAPMetric | VideoMAPMetric):
        return list(part.labels)
    if isinstance(part, TubeDataset):
        return list(part.metainfo['classes'])
    return part.action_ids


def _check_keyframes(
    metric: OwnMetric, datasets: Iterable[OwnDataset], report: Report
) -> None:
    predicted = {
        keyframe_key(info['video_id'], info['timestamp'])
        for dataset in datasets
        for info in map(dataset.get_data_info, range(len(dataset)))
    }
    true = metric.true_keyframes()
    missing = true - predicted
    if len(missing) == len(true):
        message = (
            f'none of its {len(true)} keyframes, as {min(true)}, is in the dataset, '
            f'which has {min(predicted)}; give the annotation of this split to both.'
        )
        report.error('evaluator', report.ann_file, None, message)
        return
    if missing:
        message = (
            f'{len(missing)} of its {len(true)} keyframes are not in the dataset and '
            f'will count as missed, first {min(missing)}; give both the same '
            'annotation, split and excluded keyframes.'
        )
        report.warn('missed', report.ann_file, None, message)
    known = {_video(key) for key in true}
    strange = sorted(
        key
        for key in predicted - true
        if _video(key) not in known and metric.counts_unannotated(key)
    )
    if strange:
        message = (
            f'{len(strange)} keyframes of the dataset are of videos that are not in '
            f'it, first {strange[0]}: all detections there will count as wrong; give '
            'both the same annotation.'
        )
        report.warn('unknown', report.ann_file, None, message)


def _video(key: str) -> str:
    return key.rpartition(',')[0]
