"""Comparison of the evaluators of a config with the data that they evaluate."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from mmengine.config import Config

from stmixer_mm.apis.config import SPLITS
from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.person_dataset import PersonDataset
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.evaluation.metrics.detection_metric import WRONG, DetectionMetric
from stmixer_mm.evaluation.results.offline import metric_configs
from stmixer_mm.projects.data_checks.reports import Report
from stmixer_mm.registry import DATASETS, METRICS


def check_evaluators(cfg: Config, splits: Iterable[str] = SPLITS) -> list[Report]:
    """Reports of the metrics of a config that cannot be built or miss their data.

    Args:
        cfg: A config with ``val_evaluator``, ``val_dataloader`` and so on. Splits with
            the same of both are compared once.
        splits: Of 'train', 'val', 'test'.
    """
    reports, seen = [], []
    for split in splits:
        pair = (list(dataset_configs(cfg, split)), metric_configs(cfg, split))
        if pair in seen or not all(pair):
            continue
        seen.append(pair)
        datasets = []
        with suppress(Exception):  # the check of the dataset reports it
            datasets = [DATASETS.build(dataset) for dataset in pair[0]]
        is_ours = datasets and all(isinstance(one, PersonDataset) for one in datasets)
        for config in pair[1]:
            source = config.get('ann_file') or config.get('type')
            report = Report(f'{split}_evaluator', str(source))
            with report.noting('evaluator', 'the metric cannot be built and compared'):
                metric = METRICS.build(config)
                if is_ours and isinstance(metric, DetectionMetric):
                    _compare(metric, datasets, report)
            if report.findings:
                reports.append(report)
    return reports


def _compare(
    metric: DetectionMetric, datasets: Sequence[PersonDataset], report: Report
) -> None:
    """Compare classes and keyframes."""
    for dataset in datasets:
        names = dict(enumerate(dataset.metainfo['classes'], start=1))
        is_same = metric.class_names.items() <= names.items()
        is_named = not isinstance(dataset, KeyframeDataset)
        if metric.num_classes != dataset.num_classes or (is_named and not is_same):
            message = (
                f'it has other classes than {dataset.ann_file}; give both the same '
                'labels and num_classes.'
            )
            report.error('classes', report.place(), message)
    predicted = {
        keyframe_key(info['video_id'], info['timestamp'])
        for dataset in datasets
        for info in map(dataset.get_data_info, range(len(dataset)))
    }
    annotated = metric.true_keyframes()
    # A clip stands for the frames around it, too.
    of_clips = {video for dataset in datasets for video in dataset.tracks}
    missed = {key for key in annotated - predicted if _video(key) not in of_clips}
    videos = set(map(_video, annotated))
    unknown = {key for key in predicted if metric.effect(key) == WRONG}
    unknown = {key for key in unknown if _video(key) not in videos}
    find = report.error if missed == annotated else report.warn
    for kind, keys, where in (
        ('missed', missed, f'of its {len(annotated)} keyframes are not in the dataset'),
        ('unknown', unknown, 'keyframes of the dataset are of videos that it lacks'),
    ):
        if keys:
            message = (
                f'{len(keys)} {where} and will count as wrong, such as {min(keys)}; give '
                'both the same annotation, split and excluded keyframes.'
            )
            find(kind, report.place(), message)


def _video(key: str) -> str:
    return key.rpartition(',')[0]
