"""Clips of noise, to measure with."""

from typing import Annotated

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope

from stmixer_mm.command_line import Count
from stmixer_mm.datasets.pipelines import dataset_configs, find, find_sampler
from stmixer_mm.errors import UserError

# Height and width of random frames: 256x320 where the pipeline resizes as for AVA.
FRAME_SIZE = (512, 640)
# Of a command line: frames, height and width of a clip.
Shape = Annotated[tuple[Count, Count, Count] | None, dict(metavar=('T', 'H', 'W'))]


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
    transforms = next(dataset_configs(cfg, 'test'), {}).get('pipeline') or []
    sampler = find_sampler(transforms)
    decoder = find(transforms, lambda transform: 'Decode' in transform['type'])
    if sampler is None or decoder is None or decoder < sampler:
        raise UserError(
            'The pipeline of test_dataloader has no transform that decodes frames after '
            'one with clip_len; give the config of a detector on clips.'
        )
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
        augment = Compose(transforms[decoder + 1 :]).transforms
    frames, num_clips = (
        transforms[sampler].get(name, 1) for name in ('clip_len', 'num_clips')
    )
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
        imgs=[frame] * (frames * num_clips),
        img_shape=(height, width),
        original_shape=(height, width),
        clip_len=frames,
        num_clips=num_clips,
        modality='RGB',
        img_key='random,0',
        crop_quadruple=np.float32((0, 0, 1, 1)),
    )
    for transform in augment:
        results = transform(results)
    return pseudo_collate([results])
