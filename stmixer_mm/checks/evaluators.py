"""Whether the evaluators of a config belong to the data that it predicts."""

import inspect
from collections.abc import Iterable, Sequence

from mmengine.config import Config

from stmixer_mm.checks.datasets import SPLITS
from stmixer_mm.checks.reports import Report
from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.person_dataset import PersonDataset
from stmixer_mm.datasets.pipelines import plain_datasets
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.registry import DATASETS, METRICS


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
        loader = cfg.get(f'{split}_dataloader') or {}
        pair = (loader.get('dataset'), cfg.get(f'{split}_evaluator'))
        if None in pair or pair in seen:
            continue
        seen.append(pair)
        datasets = _build_datasets(pair[0])
        for metric_cfg in _listed(pair[1]):
            report = Report(f'{split}_evaluator', _source(metric_cfg))
            metric = _build_metric(metric_cfg, report)
            if metric is not None and datasets:
                for dataset in datasets:
                    _check_classes(metric, dataset, report)
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


def _build_metric(cfg: dict, report: Report) -> DetectionMetric | None:
    """None for metrics of others, which may read or need anything."""
    metric_type = cfg.get('type')
    if isinstance(metric_type, str):
        metric_type = METRICS.get(metric_type)
    if inspect.isclass(metric_type) and not issubclass(metric_type, DetectionMetric):
        return None
    try:
        with blame('the metric cannot be built', 'correct it in the config'):
            return METRICS.build(cfg)
    except UserError as error:
        report.add_exception('evaluator', error)
        return None


def _build_datasets(cfg: dict) -> list[PersonDataset]:
    """Those inside of wrappers; none if any is broken, or of others."""
    try:
        datasets = [DATASETS.build(plain) for plain in plain_datasets(cfg)]
    except Exception:  # the check of the dataset reports it
        return []
    is_ours = all(isinstance(dataset, PersonDataset) for dataset in datasets)
    return datasets if is_ours else []


def _check_classes(
    metric: DetectionMetric, dataset: PersonDataset, report: Report
) -> None:
    """Whether score columns 1, 2, ... are of the same actions: ids, or names in tubes."""
    if isinstance(dataset, KeyframeDataset):
        is_same = list(metric.action_ids) == dataset.action_ids
    else:
        columns = dict(enumerate(dataset.metainfo['classes'], start=1))
        is_same = metric.class_names.items() <= columns.items()
    if not is_same or metric.num_classes != dataset.num_classes:
        message = (
            f'{type(metric).__name__} has other classes than the dataset of '
            f'{dataset.ann_file} ({metric.num_classes} and {dataset.num_classes} with '
            'the dummy class 0), or in another order; give both the same label file '
            'and custom_classes.'
        )
        report.error('classes', (report.ann_file, None), message)


def _check_keyframes(
    metric: DetectionMetric, datasets: Iterable[PersonDataset], report: Report
) -> None:
    predicted = {
        keyframe_key(info['video_id'], info['timestamp'])
        for dataset in datasets
        for info in map(dataset.get_data_info, range(len(dataset)))
    }
    annotated = metric.true_keyframes()
    missing = annotated - predicted
    if missing:
        message = (
            f'{len(missing)} of its {len(annotated)} keyframes are not in the dataset '
            f'and will count as missed, such as {min(missing)}, while the dataset has '
            f'{min(predicted)}; give both the same annotation, split and excluded '
            'keyframes.'
        )
        find = report.error if missing == annotated else report.warn
        find('missed', (report.ann_file, None), message)
    videos = {_video(key) for key in annotated}
    unknown = {
        key
        for key in predicted - annotated
        if _video(key) not in videos and metric.counts_unannotated(key)
    }
    if unknown and missing != annotated:
        message = (
            f'{len(unknown)} keyframes of the dataset are of videos that it lacks, '
            f'such as {min(unknown)}: all detections there will count as wrong; give '
            'both the same annotation.'
        )
        report.warn('unknown', (report.ann_file, None), message)


def _video(key: str) -> str:
    return key.rpartition(',')[0]
