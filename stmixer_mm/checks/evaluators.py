"""Whether the evaluators of a config belong to the data that it predicts."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from mmengine.config import Config

from stmixer_mm.checks.config import SPLITS
from stmixer_mm.checks.reports import Report
from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.clip_dataset import TrackedDataset
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.person_dataset import PersonDataset
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.results.offline import metric_configs
from stmixer_mm.registry import DATASETS, METRICS


def check_evaluators(cfg: Config, splits: Iterable[str] = SPLITS) -> list[Report]:
    """Build the metrics of a config and compare ours with the data that they evaluate.

    Args:
        cfg: A config with ``val_evaluator``, ``val_dataloader`` and so on. What was
            already compared is passed over.
        splits: Of 'train', 'val', 'test'.

    Returns:
        A report for each metric with findings.
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
        for metric_cfg in pair[1]:
            source = metric_cfg.get('ann_file') or metric_cfg.get('type')
            report = Report(f'{split}_evaluator', str(source))
            with report.noting('evaluator', 'the metric cannot be built and compared'):
                metric = METRICS.build(metric_cfg)
                if is_ours and isinstance(metric, DetectionMetric):
                    _compare(metric, datasets, report)
            if report.findings:
                reports.append(report)
    return reports


def _compare(
    metric: DetectionMetric, datasets: Sequence[PersonDataset], report: Report
) -> None:
    """Whether score columns are of the same actions, and keyframes the same."""
    place = (report.ann_file, None)
    for dataset in datasets:
        if isinstance(dataset, KeyframeDataset):
            is_same = list(metric.action_ids) == dataset.action_ids
        else:
            columns = dict(enumerate(dataset.metainfo['classes'], start=1))
            is_same = metric.class_names.items() <= columns.items()
        if not is_same or metric.num_classes != dataset.num_classes:
            message = (
                f'{type(metric).__name__} has other classes than the dataset of '
                f'{dataset.ann_file} ({metric.num_classes} and {dataset.num_classes} '
                'with the dummy class 0), or in another order; give both the same '
                'label file and custom_classes.'
            )
            report.error('classes', place, message)
    predicted = {
        keyframe_key(info['video_id'], info['timestamp'])
        for dataset in datasets
        for info in map(dataset.get_data_info, range(len(dataset)))
    }
    annotated = metric.true_keyframes()
    videos = {key.rpartition(',')[0] for key in annotated}
    # A clip stands for the frames around it, too.
    of_clips = {
        video_id
        for dataset in datasets
        if isinstance(dataset, TrackedDataset)
        for video_id in dataset.video_ids
    }
    missed = {
        key for key in annotated - predicted if key.rpartition(',')[0] not in of_clips
    }
    unknown = {
        key
        for key in filter(metric.counts_unannotated, predicted)
        if key.rpartition(',')[0] not in videos
    }
    for kind, keys, effect in (
        ('missed', missed, f'of its {len(annotated)} keyframes are not in the dataset'),
        ('unknown', unknown, 'keyframes of the dataset are of videos that it lacks'),
    ):
        if keys:
            message = (
                f'{len(keys)} {effect} and will count as wrong, such as {min(keys)}; '
                'give both the same annotation, split and excluded keyframes.'
            )
            find = report.error if missed == annotated else report.warn
            find(kind, place, message)
