"""Laws of maps of evidence for actions, and of the decoder that averages them."""

from copy import deepcopy

import pytest
import torch
from detections import assert_same_keyframes
from mmengine.config import Config
from mmengine.registry import DefaultScope
from run_tool import ROOT
from tiny_stmixer import write_project

from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.inference import detect_video, init_detector
from stmixer_mm.engine.checkpoints import check_state
from stmixer_mm.errors import UserError
from stmixer_mm.projects.action_maps.action_maps import ActionMaps, box_means
from stmixer_mm.projects.export.tensors import TensorDetector
from stmixer_mm.projects.streaming.memory import FrameMemory
from stmixer_mm.registry import MODELS

RESNET = dict(type='mmdet.ResNet', depth=18, base_channels=8, norm_eval=False)
BACKBONE = dict(
    type='CausalShiftBackbone',
    backbone=RESNET,
    stages=[['conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2'], ['layer3']],
    shifts=[1],
    with_differences=True,
)
SIZES = dict(in_channels=[16, 32], map_channels=[32, 64], out_channels=16)
SIZES |= dict(num_actions=2, num_parts=3)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return Config.fromfile(write_project(tmp_path_factory.mktemp('maps')))


def build(config, **neck):
    cfg = deepcopy(config)
    cfg.model.backbone = deepcopy(BACKBONE)
    cfg.model.neck = neck or dict(type='ActionMaps', **SIZES)
    cfg.model.decoder.update(type='ActionMapDecoder')
    cfg.model.head.score_thr = 0.0
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = init_detector(cfg, None)
    for *_, evidence in getattr(model.neck, 'maps', ()):  # which begin with zeros
        torch.nn.init.normal_(evidence.weight)
    return model


@pytest.mark.parametrize('size', [(6, 8), (3, 4), (5, 7)])
def test_means_are_those_of_pixels(size):
    level, pad_shape = torch.randn(2, 1, 3, *size), (30, 56)
    lines, columns = 30 // size[0], 56 // size[1]
    pixels = level[:, 0].repeat_interleave(lines, 2).repeat_interleave(columns, 3)
    bboxes = torch.tensor([[0, 0, 56, 30], [3, 5, 20, 6], [-9, -9, 8, 40]])
    means = box_means(level, bboxes.expand(2, -1, -1).float(), pad_shape)
    for number, (x1, y1, x2, y2) in enumerate(bboxes.clamp(min=0).tolist()):
        expected = pixels[..., y1:y2, x1:x2].mean(dim=(2, 3))
        torch.testing.assert_close(means[:, number], expected)


def test_slices_of_a_box_have_maps_of_their_own():
    level, pad_shape = torch.randn(1, 2, 3, 6, 8), (30, 40)
    boxes = [[4.0, 5, 20, 25], [4, 5, 20, 15], [4, 15, 20, 25]]
    full, upper, lower = (torch.tensor([[box]]) for box in boxes)
    means = box_means(level, full, pad_shape)
    of_slices = [
        box_means(level[:, :1], upper, pad_shape),
        box_means(level[:, 1:], lower, pad_shape),
    ]
    torch.testing.assert_close(means, sum(of_slices) / 2)


def test_a_box_beside_the_frame_has_no_evidence():
    bboxes = torch.tensor([[[-20.0, 0, -10, 10], [40, 50, 60, 70]]])
    assert not box_means(torch.ones(1, 2, 2, 3, 4), bboxes, (30, 40)).any()


def test_levels_are_those_of_the_projection():
    neck = ActionMaps(**SIZES)
    neck.init_weights()
    feats = [torch.randn(2, 32, 2, 4, 6), torch.randn(2, 64, 2, 2, 3)]
    for level, feat, project in zip(neck(feats), feats, neck.projections, strict=True):
        channels = feat.size(1) // 2
        torch.testing.assert_close(level[:, :16], project(feat[:, :channels]))
        # Maps begin without evidence, at the prior that losses of single classes want.
        assert level[:, 16:].sum(dim=1).allclose(level[:, 16:].sum(dim=1).mean())


def test_actions_come_from_the_maps_alone(config):
    clips = torch.randint(256, (2, 3, 2, 32, 48), dtype=torch.uint8)
    model = build(config)
    _, actions, *boxes = TensorDetector(model)(clips)
    for *_, evidence in model.neck.maps:
        torch.nn.init.zeros_(evidence.weight)
        torch.nn.init.zeros_(evidence.bias)
    _, without_evidence, *same_boxes = TensorDetector(model)(clips)
    torch.testing.assert_close(boxes, same_boxes)
    assert (without_evidence == 0.5).all() and not (actions == 0.5).any()


def test_a_neck_without_maps_is_named(config):
    sizes = dict(in_channels=[32, 64], out_channels=16)
    model = build(config, type='ChannelProjection3D', **sizes)
    with pytest.raises(UserError, match=r'has 16 channels, not .* take the neck'):
        TensorDetector(model)(torch.zeros(1, 3, 2, 32, 48, dtype=torch.uint8))


def test_streams_equal_clips(config):
    model = build(config)
    assert len(FrameMemory(model, ClipLoader(model.cfg))._parts) == 0
    frames = torch.randint(256, (12, 48, 64, 3), dtype=torch.uint8).numpy()
    streamed, alone = (
        [*detect_video(model, frames, interval_s=0.1, score_thr=0, reuse=reuse)]
        for reuse in ('always', 'never')
    )
    assert len(streamed) > 1
    assert_same_keyframes(streamed, alone)


def test_the_second_recipe_starts_from_the_weights_of_the_first():
    first, second = (
        Config.fromfile(ROOT / 'configs/small' / f'{name}_jhmdb-rgb.py')
        for name in ('stmixer-n_1xb8-4x8x1-5e', 'stmixer-n-maps_1xb8-4x8x1-2e')
    )
    with DefaultScope.overwrite_default_scope('mmaction'):
        weights = MODELS.build(first.model).state_dict()
        model = MODELS.build(second.model)
    allow = second.default_hooks.check_checkpoint.allow
    check_state(model, weights, source='first', allow=allow)
