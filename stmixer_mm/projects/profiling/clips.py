"""Clips to measure with: random, from a config's dataset, or from any video file."""

import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader, Dataset

from stmixer_mm.datasets.pipelines import dataset_configs, find, find_sampler
from stmixer_mm.datasets.videos import open_video, video_sample
from stmixer_mm.errors import UserError
from stmixer_mm.projects.profiling.models import num_classes_of
from stmixer_mm.registry import DATASETS

FRAME_NAMES = 'img_{:05}.jpg'
# Height and width of random frames: 256x320 where the pipeline resizes as for AVA.
FRAME_SIZE = (512, 640)


class ClipPipeline:
    """A config's pipeline in three steps, which are timed.

    Args:
        cfg: Config.
        split: 'train', 'val' or 'test'.
        source: 'config' for the pipeline as it is; 'video' or 'frames' to sample its
            clips, as this package does, from video files or extracted frames.

    Raises:
        UserError: there is no sampler with ``clip_len``, or no decoder after it.
    """

    def __init__(self, cfg: Config, split: str, *, source: str = 'config') -> None:
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
        self.num_clips = transforms[sampler].get('num_clips', 1)
        opening, decoding = transforms[:sampler], transforms[sampler : decoder + 1]
        if source != 'config':
            is_video = source == 'video'
            opening = [dict(type='stmixer_mm.OpenVideo')] if is_video else []
            clip = dict(
                type='stmixer_mm.SampleKeyframeClip',
                clip_len=self.clip_len,
                frame_interval=transforms[sampler].get('frame_interval', 1),
            )
            decode = 'DecodeFrames' if is_video else 'DecodeFrameFiles'
            decoding = [clip, dict(type=f'stmixer_mm.{decode}')]
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
            self.open, self.decode, self.augment = map(
                Compose, (opening, decoding, transforms[decoder + 1 :])
            )

    def __call__(self, info: dict) -> dict:
        """A packed sample, with the ``seconds`` that each step took."""
        results, times = deepcopy(info), [time.perf_counter()]
        for step in (self.open, self.decode, self.augment):
            results = step(results)
            times.append(time.perf_counter())
        names = ('opening', 'decoding', 'augmentation')
        seconds = dict(zip(names, np.diff(times).tolist(), strict=True))
        return dict(results, seconds=seconds)


class ClipDataset(Dataset):
    """Packed samples of ``infos``, each once, or over and over up to ``length``."""

    def __init__(
        self,
        infos: Sequence[dict],
        pipeline: ClipPipeline,
        *,
        length: int | None = None,
    ) -> None:
        self.infos = infos
        self.pipeline = pipeline
        self.length = length or len(infos)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return self.pipeline(self.infos[index % len(self.infos)])

    def warm_up(self) -> None:
        """Bring files into the system's cache, and frames that are kept into RAM."""
        for info in self.infos:
            self.pipeline(info)

    def loader(self, **options: int) -> DataLoader:
        return DataLoader(self, collate_fn=pseudo_collate, **options)


def config_clips(cfg: Config, split: str, count: int) -> list[dict]:
    """Up to ``count`` samples, spread over a config's dataset, before its pipeline."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            raise UserError(f'The config has no {split}_dataloader; give it one.')
        dataset = DATASETS.build(loader.dataset)
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
    return [dataset.get_data_info(index) for index in indices.round().astype(int)]


def video_clips(
    video: str | Path, count: int, *, persons: int, num_classes: int
) -> list[dict]:
    """``count`` samples, spread over a video, each with random persons.

    Raises:
        UserError: the file is missing, or not a video.
    """
    reader = open_video(video)
    times = (np.arange(count) + 0.5) * len(reader) / reader.fps / count
    return [
        random_persons(persons, num_classes, seed=index) | video_sample(video, time_s)
        for index, time_s in enumerate(times)
    ]


def random_persons(count: int, num_classes: int, *, seed: int = 0) -> dict:
    """Boxes in [0, 1], as ground truth and as proposals, with one action each."""
    random = np.random.RandomState(seed)
    corner = random.uniform(0, 0.6, (count, 2))
    size = random.uniform(0.15, 0.4, (count, 2))
    bboxes = np.hstack((corner, corner + size)).astype(np.float32)
    labels = np.zeros((count, num_classes), dtype=np.float32)
    labels[np.arange(count), random.randint(1, num_classes, count)] = 1
    return dict(gt_bboxes=bboxes, gt_labels=labels, proposals=bboxes.copy())


def random_clip(
    cfg: Config, *, shape: tuple[int, int, int] | None = None, persons: int = 5
) -> dict:
    """A batch of one clip of noise, as a config's test pipeline makes it.

    Args:
        cfg: Config.
        shape: Frames, height and width of the clip; by default what the pipeline
            makes of frames of :data:`FRAME_SIZE`.
        persons: Proposals, for models that need some.

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
    results = random_persons(persons, num_classes_of(cfg))
    for name in ('gt_bboxes', 'proposals'):
        results[name] *= np.array((width, height, width, height), dtype=np.float32)
    results.update(
        imgs=[frame] * (frames * pipeline.num_clips),
        img_shape=(height, width),
        original_shape=(height, width),
        clip_len=frames,
        num_clips=pipeline.num_clips,
        modality='RGB',
        img_key='random,0',
        crop_quadruple=np.array([0, 0, 1, 1], dtype=np.float32),
    )
    for transform in augment:
        results = transform(results)
    return pseudo_collate([results])


def extract_frames(
    infos: Sequence[dict], pipeline: ClipPipeline, folder: str | Path
) -> list[dict]:
    """Write the frames of clips as JPEG; returns samples that read them.

    Args:
        infos: Samples of video files.
        pipeline: With the source 'video'.
        folder: Gets a folder per video.
    """
    extracted = []
    for info in infos:
        results = pipeline.decode(pipeline.open(deepcopy(info)))
        frame_dir = Path(folder, info['filename'].lstrip('/'))
        frame_dir.mkdir(parents=True, exist_ok=True)
        for index, image in zip(results['frame_inds'], results['imgs'], strict=True):
            file = frame_dir / FRAME_NAMES.format(index + 1)
            cv2.imwrite(str(file), image[..., ::-1])
        of_frames = dict(
            filename=None,
            frame_dir=str(frame_dir),
            filename_tmpl=FRAME_NAMES,
            start_index=1,
        )
        of_video = {key: results[key] for key in ('total_frames', 'fps')}
        extracted.append({**info, **of_frames, **of_video})
    return extracted
