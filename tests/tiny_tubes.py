"""Miniatures of UCF101-24, JHMDB and MultiSports in their form on disk, for tests."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import tiny_stmixer
from mmengine.config import Config

SIZE = (48, 64)  # h, w
NUM_FRAMES = 20
RUN_1, RUN_2, SIT = NAMES = (
    'Run/v_Run_g01_c01',
    'Run/v_Run_g02_c01',
    'Sit/v_Sit_g01_c01',
)


def tube(first, last, box, step=(0, 0)):
    """A tube (n, 5) whose box moves by step from frame to frame."""
    frames = np.arange(first, last + 1, dtype=np.float32)
    boxes = np.array(box) + np.arange(len(frames))[:, None] * np.tile(step, 2)
    return np.column_stack([frames, boxes]).astype(np.float32)


def truth(**changes):
    """Two labels, two splits; the last two videos have frames without a box."""
    return {
        'labels': ['Run', 'Sit'],
        'train_videos': [[RUN_1, SIT], [RUN_2]],
        'test_videos': [[RUN_2, SIT], [RUN_1]],
        'nframes': dict.fromkeys(NAMES, NUM_FRAMES),
        'resolution': dict.fromkeys(NAMES, SIZE),
        **gttubes(),
        **changes,
    }


def gttubes(**changes):
    """The tubes of the videos, of which some are changed."""
    tubes = {
        RUN_1: {0: [tube(1, 20, (8, 4, 24, 40), (1, 0))]},
        RUN_2: {0: [tube(1, 16, (8, 4, 24, 40)), tube(3, 18, (36, 4, 52, 40))]},
        SIT: {1: [tube(5, 20, (16, 8, 48, 32), (0, 0.5))]},
    }
    return dict(gttubes={**tubes, **changes})


def write_truth(path, **changes):
    """The pickle, in the protocol of Python 2 as the published ones."""
    Path(path).write_bytes(pickle.dumps(truth(**changes), protocol=2))
    return str(path)


def write_frames(folder, suffix='.jpg', num_frames=NUM_FRAMES):
    """``<class>/<video>/00001.jpg`` and so on, each brighter than the last."""
    for name in NAMES:
        video = Path(folder, name)
        video.mkdir(parents=True)
        for number in range(1, num_frames + 1):
            picture = np.full((*SIZE, 3), number * 8, np.uint8)
            cv2.imwrite(str(video / f'{number:05}{suffix}'), picture)
    return str(folder)


def write_videos(folder):
    """``<class>/<video>.mp4``."""
    for name in NAMES:
        path = Path(folder, name + '.mp4')
        tiny_stmixer.write_video(path, frames=NUM_FRAMES, fps=25, size=SIZE[::-1])
    return str(folder)


def tube_config(root, layout):
    """UCF101-24 or MultiSports, and the config of a tiny run on it."""
    config = Config.fromfile(tiny_stmixer.write_project(root / 'base'))
    ann_file, pipeline = write_truth(root / 'GT.pkl'), config.pipeline
    use_frames = layout == 'ucf101-24'
    if use_frames:
        folder = write_frames(root / 'rgb-images')
        _, sampling, _, *transforms = pipeline
        pipeline = [sampling, dict(type='DecodeFrameFiles'), *transforms]
    else:
        folder = write_videos(root / 'trainval')
    dataset = dict(type='TubeDataset', ann_file=ann_file, pipeline=pipeline)
    dataset.update(data_prefix=dict(img=folder), use_frames=use_frames)
    config.train_dataloader.dataset = dict(dataset, frame_stride=10)
    for split in ('val', 'test'):
        config[f'{split}_dataloader'].dataset = dict(
            dataset, all_frames=True, test_mode=True
        )
        config[f'{split}_evaluator'] = [
            dict(type=metric, ann_file=ann_file)
            for metric in ('TubeFrameMAPMetric', 'VideoMAPMetric')
        ]
    return config
