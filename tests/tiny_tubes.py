"""Miniatures of UCF101-24, JHMDB and MultiSports in their form on disk, for tests."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import tiny_stmixer

SIZE = (48, 64)  # h, w
NUM_FRAMES = 20
RUN_1, RUN_2, SIT = NAMES = (
    'Run/v_Run_g01_c01',
    'Run/v_Run_g02_c01',
    'Sit/v_Sit_g01_c01',
)

CONFIG = """
_base_ = {base!r}
dataset = dict(
    _delete_=True, type='TubeDataset', ann_file={ann_file!r},
    data_prefix=dict(img={folder!r}), use_frames={use_frames!r},
    pipeline={pipeline!r},
)
train_dataloader = dict(dataset=dict(frame_stride=10, **dataset))
val_dataloader = test_dataloader = dict(
    dataset=dict(all_frames=True, test_mode=True, **dataset)
)
val_evaluator = test_evaluator = [
    dict(type='TubeFrameMAPMetric', ann_file={ann_file!r}),
    dict(type='VideoMAPMetric', ann_file={ann_file!r}),
]
"""


def tube(first, last, box, step=(0, 0)):
    """A tube (n, 5) whose box moves by step from frame to frame."""
    frames = np.arange(first, last + 1, dtype=np.float32)
    moved = np.array(box) + np.arange(len(frames))[:, None] * np.tile(step, 2)
    return np.column_stack([frames, moved]).astype(np.float32)


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


def write_project(root, layout):
    """UCF101-24 or MultiSports and a config of a tiny training run; returns the config."""
    root = Path(root)
    base = tiny_stmixer.write_project(root / 'base')
    use_frames = layout == 'ucf101-24'
    if use_frames:
        folder, reading = write_frames(root / 'rgb-images'), ['DecodeFrameFiles']
    else:
        folder, reading = write_videos(root / 'trainval'), ['OpenVideo', 'DecodeFrames']
    *opening, decoding = [dict(type=name) for name in reading]
    pipeline = [
        *opening,
        dict(type='SampleKeyframeClip', clip_len=2, frame_interval=2),
        decoding,
        dict(type='Resize', scale=(-1, 32)),
        dict(type='FormatShape', input_format='NCTHW', collapse=True),
        dict(type='PackActionInputs'),
    ]
    config = root / 'tubes.py'
    config.write_text(
        CONFIG.format(
            base=str(base),
            ann_file=write_truth(root / 'GT.pkl'),
            folder=folder,
            use_frames=use_frames,
            pipeline=pipeline,
        )
    )
    return config
