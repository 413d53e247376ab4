"""Laws of streams: what they find is what clips by themselves find."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from detections import assert_same_keyframes
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny import MODELS_FOLDER
from tiny_stmixer import write_project

from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.inference import detect_clips, detect_video, init_detector
from stmixer_mm.datasets.clips import RecentFrames
from stmixer_mm.engine.speed import use_channels_last
from stmixer_mm.errors import UserError
from stmixer_mm.projects.streaming.memory import FrameMemory

RESNET = dict(type='mmdet.ResNet', depth=18, base_channels=8, norm_eval=False)
WIDTHS = dict(in_channels=[8, 16, 32, 64], out_channels=16)
FRAMEWISE = dict(type='FramewiseBackbone', backbone=RESNET)
PAFPN = dict(type='mmdet.PAFPN', in_channels=[16] * 4, out_channels=16, num_outs=4)
STAGES = [['conv1', 'bn1', 'relu', 'maxpool', 'layer1'], ['layer2'], ['layer3']]
CAUSAL = dict(type='CausalShiftBackbone', backbone=RESNET, shifts=[1, 3])
DIFFERENCES = CAUSAL | dict(shifts=[1], with_differences=True)
PROJECTION = dict(type='ChannelProjection3D', **WIDTHS)
BACKBONES = {
    'framewise': dict(backbone=FRAMEWISE, neck=PROJECTION),
    'causal': dict(
        backbone=CAUSAL | dict(stages=[*STAGES, ['layer4']], out_indices=[1, 2, 3]),
        neck=PROJECTION | dict(in_channels=[16, 32, 64]),
    ),
    'differences': dict(
        backbone=DIFFERENCES | dict(stages=[STAGES[0], ['layer2', 'layer3']]),
        neck=PROJECTION | dict(in_channels=[16, 64]),
    ),
    'necks': dict(
        backbone=FRAMEWISE,
        neck=[
            PROJECTION,
            dict(type='FramewiseNeck', neck=PAFPN),
        ],
    ),
    'slowonly': {},  # whose first stage has no kernel in time
}
TUBELETS = Config.fromfile(MODELS_FOLDER / 'tubelets.py')
TUBELETS = dict(decoder=TUBELETS.tubelet_decoder, head=TUBELETS.tubelet_head)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return Config.fromfile(write_project(tmp_path_factory.mktemp('streams')))


def build(config, backbone, *, frame_interval=1, ahead_s=None, **parts):
    cfg = deepcopy(config)
    for part, settings in deepcopy(BACKBONES[backbone]).items():
        cfg.model[part] = settings
    cfg.model.update(parts)
    cfg.model.decoder.num_frames = 4
    cfg.model.head.score_thr = 0.0
    sampler = cfg.test_dataloader.dataset.pipeline[1]
    sampler.update(clip_len=4, frame_interval=frame_interval, ahead_s=ahead_s)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        return init_detector(cfg, None)


def pictures(count, size=(48, 64)):
    random = np.random.RandomState(0)
    return random.randint(0, 256, (count, *size, 3), np.uint8)


# Frames from keyframe to keyframe, and from one of a clip to the next; batch size.
CASES = (1, 2, 3), (2, 3, 1), (3, 1, 2), (7, 1, 2)


@pytest.mark.parametrize(
    'backbone, settings',
    [
        *((name, {}) for name in BACKBONES),
        ('causal', dict(ahead_s=0.0)),
        ('framewise', TUBELETS),
    ],
)
def test_streams_equal_clips(config, backbone, settings):
    """At the beginning and the end, too, where frames are repeated."""
    for interval, frame_interval, batch_size in CASES:
        model = build(config, backbone, frame_interval=frame_interval, **settings)
        options = dict(interval_s=interval / 30, batch_size=batch_size, score_thr=0)
        keyframes, expected = (
            [*detect_video(model, pictures(12), reuse=reuse, **options)]
            for reuse in ('always', 'never')
        )
        assert_same_keyframes(keyframes, expected)


def test_differences_keep_the_layout_of_maps(config):
    backbone = build(config, 'differences').backbone
    use_channels_last(backbone)
    layout = torch.channels_last_3d
    for level in backbone(torch.zeros(2, 3, 4, 32, 48).to(memory_format=layout)):
        assert level.is_contiguous(memory_format=layout)


def cut(loader, *connections):
    """The clips of a stream that breaks, each as soon as its last frame is there."""
    count = 0
    for part in connections:
        ring = RecentFrames(*loader.spans, count=count)
        for picture in part:
            ring.append(ring.count / 30, picture)
            if ring.count > count + ring.after:
                yield ring.clip(ring.count - 1 - ring.after)
        count = ring.count


def assert_same_after_cut(keyframes, expected):
    """Same keyframes, but for nine frames before, at other times."""
    renumbered = [
        replace(keyframe, frame_index=keyframe.frame_index - 9, time_s=other.time_s)
        for keyframe, other in zip(keyframes, expected, strict=True)
    ]
    assert_same_keyframes(renumbered, expected)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_after_a_cut_a_stream_is_that_of_its_new_frames(config, backbone):
    """A connection that broke, another size of frames, a jump of the source's time."""
    model = build(config, backbone, frame_interval=2)
    loader, options = ClipLoader(model.cfg), dict(score_thr=0, reuse='always')
    old_pictures, new_pictures = pictures(30)[:9], pictures(30)[9:]
    clips, alone = cut(loader, new_pictures), options | dict(reuse='never')
    expected = [*detect_clips(model, loader, clips, **alone)]
    for first in old_pictures, pictures(9, size=(64, 48)):
        clips = cut(loader, first, new_pictures)
        keyframes = detect_clips(model, loader, clips, **options)
        new_keyframes = [k for k in keyframes if k.frame_index >= 9]
        assert_same_after_cut(new_keyframes, expected)
    times = np.array([*range(9), *range(500, 521)]) / 30
    stream = zip(times, pictures(30), strict=True)
    keyframes = detect_video(model, stream, interval_s=1 / 30, **options)
    # Keyframes whose clip begins after the jump.
    inds = range(9 + loader.before, 30 - loader.after)
    keyframes = [keyframe for keyframe in keyframes if keyframe.frame_index in inds]
    assert_same_after_cut(keyframes, expected[loader.before :])


def test_frames_are_seen_once_and_only_those_of_a_clip_are_kept(config):
    """Also after a connection broke, whose next frames have the next numbers."""
    model = build(config, 'framewise', frame_interval=2)
    loader = ClipLoader(model.cfg)
    memory, batch_sizes, num_frames = FrameMemory(model, loader), [], []
    model.backbone.backbone.conv1.register_forward_hook(
        lambda module, inputs, output: batch_sizes.append(len(output))
    )
    clips = cut(loader, pictures(12), pictures(24, size=(64, 48)))
    for _, inputs in loader.load(clips, None, memory):
        memory.test_step([inputs])
        num_frames.append(sum(len(feats) for feats in memory._outputs))
    assert sum(batch_sizes) == 12 + 24
    assert max(num_frames) <= 1 + 3 * 2  # frames from a clip's first to its last


FLIP = dict(type='mmaction.Flip', flip_ratio=0.5)


@pytest.mark.parametrize(
    'backbone, steps, culprit',
    [
        (dict(inflate=(1, 1, 1)), [], 'ResNet3dSlowOnly cannot stream'),
        (dict(conv1_kernel=(3, 7, 7)), [], 'ResNet3dSlowOnly cannot stream'),
        ({}, [FLIP], 'Flip'),
    ],
    ids=['kernels in time', 'a first kernel in time', 'chance'],
)
def test_what_sees_whole_clips_gets_them(config, backbone, steps, culprit):
    cfg = deepcopy(config)
    cfg.model.backbone.update(backbone)
    cfg.test_dataloader.dataset.pipeline[4:4] = steps
    model = build(cfg, 'slowonly')
    with pytest.raises(UserError, match=culprit):
        FrameMemory(model, ClipLoader(model.cfg))
    assert [*detect_video(model, pictures(12))]


@pytest.mark.parametrize(
    'wrong',
    [dict(shifts=[0]), dict(out_indices=[0, 1]), dict(stages=[['no']], shifts=[])],
)
def test_stages_that_are_none(config, wrong, monkeypatch):
    backbone = BACKBONES['causal']['backbone'] | wrong
    monkeypatch.setitem(BACKBONES, 'wrong', dict(backbone=backbone))
    with pytest.raises(UserError, match=r'shifts=.*out_indices=|model.*CausalShift'):
        build(config, 'wrong')
