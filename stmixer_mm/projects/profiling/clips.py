"""Clips to measure with: random, from a config's dataset, or from a video file."""

from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor

from stmixer_mm.command_line import Count
from stmixer_mm.datasets.pipelines import dataset_configs, find, find_sampler
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError
from stmixer_mm.models.data_preprocessor import single_clips
from stmixer_mm.registry import DATASETS

# Height and width of random frames: 256x320 where the pipeline resizes as for AVA.
FRAME_SIZE = (512, 640)
# Of a command line: frames, height and width of a clip.
Shape = Annotated[tuple[Count, Count, Count] | None, dict(metavar=('T', 'H', 'W'))]


class ClipPipeline:
    """A config's pipeline in two steps, ``read`` and ``augment``.

    Args:
        cfg: Config.
        split: 'train', 'val' or 'test'.
        of_videos: Sample the same clips from video files, with this package's
            transforms, whatever the config reads.

    Raises:
        UserError: there is no sampler with ``clip_len``, or no decoder after it.
    """

    def __init__(self, cfg: Config, split: str, *, of_videos: bool = False) -> None:
        dataset = next(dataset_configs(cfg, split), {})
        transforms = dataset.get('pipeline') or []
        sampler = find_sampler(transforms)
        decoder = find(transforms, lambda transform: 'Decode' in transform['type'])
        if sampler is None or decoder is None or decoder < sampler:
            raise UserError(
                f'The pipeline of {split}_dataloader has no transform that decodes '
                'frames after one with clip_len; give the config of a detector on '
                'clips.'
            )
        self.clip_len = transforms[sampler]['clip_len']
        self.frame_interval = transforms[sampler].get('frame_interval', 1)
        self.num_clips = transforms[sampler].get('num_clips', 1)
        reading = transforms[: decoder + 1]
        if of_videos:
            clip = dict(clip_len=self.clip_len, frame_interval=self.frame_interval)
            reading = [
                dict(type='stmixer_mm.OpenVideo'),
                dict(type='stmixer_mm.SampleKeyframeClip', **clip),
                dict(type='stmixer_mm.DecodeFrames'),
            ]
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
            self.read = Compose(reading)
            self.augment = Compose(transforms[decoder + 1 :])

    def __call__(self, info: dict) -> dict:
        """A packed sample."""
        return self.augment(self.read(deepcopy(info)))


def config_clips(cfg: Config, split: str, count: int) -> list[dict]:
    """Up to ``count`` samples, spread over a config's dataset, before its pipeline."""
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise UserError(f'The config has no {split}_dataloader; give it one.')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
        dataset = DATASETS.build(loader.dataset)
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
    return [dataset.get_data_info(index) for index in indices.round().astype(int)]


def video_clips(video: str | Path, count: int) -> list[dict]:
    """``count`` samples, spread over a video."""
    reader = open_video(video)
    times = (np.arange(count) + 0.5) * len(reader) / reader.fps / count
    name = Path(video).name
    sample = dict(filename=str(video), video_id=name, start_index=0, modality='RGB')
    return [
        dict(sample, timestamp=time_s, img_key=f'{name},{time_s:g}')
        for time_s in times.tolist()
    ]


def stack_clips(infos: list[dict], pipeline: ClipPipeline) -> Tensor:
    """Clips (B, 3, T, h, w) of the most frequent shape; others are left out."""
    clips = single_clips(pipeline(info)['inputs'] for info in infos)
    shape, _ = Counter(clip.shape for clip in clips).most_common(1)[0]
    return torch.stack([clip for clip in clips if clip.shape == shape])


def random_persons(cfg: Config, *, count: int = 5) -> dict:
    """Boxes in [0, 1], as ground truth and as proposals, with one action each."""
    head = cfg.model.get('head') or {}
    if 'num_classes' not in head:
        head = (cfg.model.get('roi_head') or {}).get('bbox_head') or {}
    num_classes = head.get('num_classes', 81)
    random = np.random.RandomState(0)
    corner = random.uniform(0, 0.6, (count, 2))
    size = random.uniform(0.15, 0.4, (count, 2))
    bboxes = np.hstack((corner, corner + size)).astype(np.float32)
    labels = np.zeros((count, num_classes), dtype=np.float32)
    labels[np.arange(count), random.randint(1, num_classes, count)] = 1
    return dict(gt_bboxes=bboxes, gt_labels=labels, proposals=bboxes.copy())


def random_clip(cfg: Config, *, shape: tuple[int, int, int] | None = None) -> dict:
    """A batch of one clip of noise, from a config's test pipeline.

    Args:
        cfg: Config.
        shape: Frames, height and width of the clip; by default those that the
            pipeline makes of frames of :data:`FRAME_SIZE`.

    Raises:
        UserError: the pipeline makes no clips.
    """
    pipeline = ClipPipeline(cfg, 'test')
    frames, augment = pipeline.clip_len, pipeline.augment.transforms
    height, width = FRAME_SIZE
    if shape is not None:
        frames, height, width = shape
        first = find(augment, lambda part: type(part).__name__ == 'FormatShape')
        augment = augment[first or 0 :]
    frame = np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8)
    results = random_persons(cfg)
    for name in ('gt_bboxes', 'proposals'):
        results[name] *= np.float32((width, height) * 2)
    results.update(
        imgs=[frame] * (frames * pipeline.num_clips),
        img_shape=(height, width),
        original_shape=(height, width),
        clip_len=frames,
        num_clips=pipeline.num_clips,
        modality='RGB',
        img_key='random,0',
        crop_quadruple=np.float32((0, 0, 1, 1)),
    )
    for transform in augment:
        results = transform(results)
    return pseudo_collate([results])
