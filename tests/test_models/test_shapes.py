"""Shapes between parts, and one sentence where they do not fit."""

import random
import threading

import numpy as np
import pytest
import torch
from tiny import build_detector, tiny_decoder, tiny_detector
from torch import nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.shapes import trace_shapes
from stmixer_mm.registry import MODELS

WIDTHS = [4, 8, 16, 32]  # of the tiny backbone
CLIP = (1, 3, 2, 64, 96)


def detector(neck='as it is', backbone=None, **decoder):
    """Config of the tiny detector with another neck or backbone."""
    config = tiny_detector(tiny_decoder(**decoder))
    config['backbone'] = backbone or config['backbone']
    config['neck'] = config['neck'] if neck == 'as it is' else neck
    return config


def projection(**settings):
    default = dict(type='ChannelProjection3D', in_channels=WIDTHS, out_channels=16)
    return default | settings


def check(config, clip=CLIP):
    model = MODELS.build(config)
    model.check_feats(trace_shapes(model, torch.zeros(clip)).feats, clip[-2:])


@MODELS.register_module()
class PlainNeck(nn.ModuleList):
    """A neck without checks of its own."""

    def __init__(self, in_channels=WIDTHS, out_channels=16):
        super().__init__(nn.Conv3d(width, out_channels, 1) for width in in_channels)

    def change(self, feat):
        return feat

    def forward(self, feats):
        return [
            self.change(layer(feat)) for layer, feat in zip(self, feats, strict=True)
        ]


@MODELS.register_module()
class SumNeck(PlainNeck):
    def forward(self, feats):
        return sum(feat.mean() for feat in super().forward(feats))


@MODELS.register_module()
class ReadsValues(PlainNeck):
    def change(self, feat):
        random.random(), np.random.rand(), torch.rand(1)
        return feat * float(feat.mean() > -100)


@MODELS.register_module()
class NeedsGPU(PlainNeck):
    def change(self, feat):
        raise RuntimeError('fused_neck: only CUDA tensors\nsee the manual')


@MODELS.register_module()
class HasState(PlainNeck):
    """It cannot be copied, counts, and has a tensor that is no parameter."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.scale = torch.ones(1)
        self.register_buffer('count', torch.zeros(()))

    def change(self, feat):
        self.count += 1
        return feat * self.scale


@MODELS.register_module()
class OneMap(nn.Conv3d):
    """A backbone of clips of an even number of frames."""

    def __init__(self):
        super().__init__(3, 16, 1)

    def forward(self, clips):
        assert clips.size(2) % 2 == 0, 'an even number of frames, please'
        return super().forward(clips)[..., ::4, ::4]


@pytest.mark.parametrize(
    'config, expected',
    [
        (
            detector([projection(), projection(in_channels=[16] * 4)]),
            ['model.backbone', 'model.neck[0]', 'model.neck[1]'],
        ),
        (detector(), ['model.backbone', 'model.neck']),
        (detector(dict(type='ReadsValues')), ['model.backbone', 'model.neck']),
        (detector(None, dict(type='OneMap')), ['model.backbone']),
    ],
    ids=['two necks', 'one', 'without meta kernel', 'none'],
)
def test_shapes_are_those_of_a_run(config, expected):
    model = build_detector(config).eval()
    clip = torch.zeros(CLIP)
    shapes = trace_shapes(model, clip)
    assert [part.key for part in shapes.parts] == expected
    feats = model.extract_feat(clip)
    assert [feat.shape for feat in shapes.feats] == [feat.shape for feat in feats]


CSN = dict(type='mmaction.ResNet3dCSN', depth=50, base_channels=4, pretrained=None)
CSN |= dict(pretrained2d=False, with_pool2=False, out_indices=(0, 1, 2))
FPN = dict(type='mmdet.FPN', in_channels=WIDTHS, out_channels=16, num_outs=4)
IMAGES = r'if it is made for images, run it on each frame in a '
MISFITS = {
    'widths': (
        dict(neck=projection(in_channels=[4, 8, 16, 64])),
        r'ChannelProjection3D has in_channels=\[4, 8, 16, 64\] .*; set in_channels=',
    ),
    'without checks of its own': (
        dict(neck=dict(type='PlainNeck', in_channels=[4, 8, 16])),
        r'^model\.neck, a PlainNeck, fails on \[1x4x2x16x24, .*longer than argument 1',
    ),
    'neck of images': (dict(neck=FPN), 'a FPN, fails on .*' + IMAGES + 'FramewiseNeck'),
    'backbone of images': (
        dict(backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4)),
        'a ResNet, fails on 1x3x2x64x96 .*' + IMAGES + 'FramewiseBackbone',
    ),
    'for another device': (
        dict(neck=dict(type='NeedsGPU')),
        r'a NeedsGPU, fails on .* \(fused_neck: only CUDA tensors see the manual\)',
    ),
    'no levels': (dict(neck=dict(type='SumNeck')), r'level 0 is \(\)'),
    'width of the decoder': (
        dict(neck=projection(out_channels=8)),
        r'set model\.decoder\.embed_dims=8',
    ),
    'no neck': (dict(neck=None), r'\(1, 4, 2, 16, 24\), .* has embed_dims=16'),
    'frames': (dict(num_frames=3), r'set model\.decoder\.num_frames=2'),
    'levels of different length': (
        dict(backbone=CSN, neck=projection(in_channels=[16, 32, 64])),
        r'^Level 1 of the feature maps is \(1, 16, 1, .*has num_frames=2',
    ),
    'stride': (dict(strides=(8, 16, 32, 64)), r'strides of about \[4\.0, 8\.0, 16\.0'),
}


@pytest.mark.parametrize('name', MISFITS)
def test_parts_that_do_not_fit(name):
    settings, sentence = MISFITS[name]
    with pytest.raises(UserError, match=sentence) as raised:
        check(detector(**settings))
    assert '\n' not in str(raised.value)


def test_clips_that_a_part_cannot_take():
    config = detector(None, dict(type='OneMap'))
    with pytest.raises(UserError, match='OneMap, fails on 1x3x5x64x96'):
        check(config, (1, 3, 5, 64, 96))
    check(config)


@pytest.mark.parametrize('neck', [ReadsValues, HasState])
def test_a_trace_leaves_everything_as_it_was(neck):
    model = build_detector(detector(dict(type=neck.__name__))).train()
    model.backbone.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    states = random.getstate(), np.random.get_state()[1], torch.get_rng_state()
    feats = trace_shapes(model, torch.ones(CLIP)).feats
    model.check_feats(feats, CLIP[-2:])  # it is not refused
    assert {name: one.training for name, one in model.named_modules()} == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.is_grad_enabled()
