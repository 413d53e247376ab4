"""A tiny STMixer with made-up videos, for tests that run the whole thing."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.registry import DefaultScope

from stmixer_mm.apis.inference import init_detector
from stmixer_mm.datasets.annotations.label_map import format_label_map

ROOT = Path(__file__).parent.parent
ACTIONS = ('stand', 'walk')

CONFIG = """
_base_ = ['{base}/models/stmixer_tiny.py', '{base}/default_runtime.py']
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=[4, 16], out_channels=16),
    decoder=dict(
        num_frames=2, embed_dims=16, num_queries=4, num_stages=2, num_heads=2,
        feedforward_channels=16, num_groups=2, num_points=4, out_multiplier=2,
    ),
    head=dict(num_classes=3),
)
pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleKeyframeClip', clip_len=2, frame_interval=2),
    dict(type='DecodeFrames'),
    dict(type='Resize', scale=(-1, 32)),
    dict(type='FormatShape', input_format='NCTHW', collapse=True),
    dict(type='PackActionInputs'),
]
dataset = dict(
    type='KeyframeDataset', ann_file='train.csv', label_file='actions.pbtxt',
    data_root={root!r}, data_prefix=dict(img={root!r}), num_classes=3,
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_dataloader = test_dataloader = dict(
    batch_size=1, num_workers=0, dataset=dict(test_mode=True, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = test_evaluator = dict(
    type='FrameMAPMetric', ann_file={root!r} + '/train.csv',
    label_file={root!r} + '/actions.pbtxt', num_classes=3,
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-3, weight_decay=1e-4)
)
auto_scale_lr = dict(enable=False, base_batch_size=2)
randomness = dict(seed=0)
"""


def write_video(path, *, frames=20, fps=10, size=(64, 48)):
    """A video of noise that gets brighter from frame to frame."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, size)
    noise = np.random.RandomState(0).randint(0, 60, (size[1], size[0], 3))
    for index in range(frames):
        writer.write(np.uint8(noise + index * 150 // frames))
    writer.release()
    return path


def write_project(root):
    """Videos, annotation and config of a tiny training run; returns the config."""
    root = Path(root)
    rows = []
    for index in range(4):
        write_video(root / f'{index}.mp4', size=(64 + 32 * (index % 2), 48))
        rows.append(f'{index}.mp4,1,0.1,0.1,0.5,0.9,1,0')
        rows += [f'{index}.mp4,1,0.4,0.2,0.9,0.8,2,1'] * (index % 2)
    (root / 'train.csv').write_text('\n'.join(rows) + '\n')
    (root / 'actions.pbtxt').write_text(format_label_map(dict(stand=1, walk=2)))
    config = root / 'tiny.py'
    base = f'{ROOT}/configs/_base_'
    config.write_text(CONFIG.format(root=str(root), base=base))
    return config


def write_model(root):
    """The same, and an untrained checkpoint; returns config and checkpoint."""
    config, checkpoint = write_project(root), Path(root, 'tiny.pth')
    with DefaultScope.overwrite_default_scope('mmaction'):
        torch.manual_seed(0)
        torch.save(init_detector(config, None).state_dict(), checkpoint)
    return config, checkpoint


def tool_environment(**variables):
    """Environment in which the tools find the package without it being installed."""
    return {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        **variables,
    }
