"""Shapes between parts, and one sentence where they do not fit."""

import random

import numpy as np
import pytest
import torch
from tiny import build_detector, tiny_detector
from torch import nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.shapes import trace_shapes
from stmixer_mm.registry import MODELS

WIDTHS = [4, 8, 16, 32]  # of the tiny backbone
CLIP = (1, 3, 2, 64, 96)


NECK = tiny_detector()['neck']


def detector(neck=NECK, backbone=None):
    """Config of the tiny detector with another neck or backbone."""
    config = tiny_detector() | dict(neck=neck)
    return config | dict(backbone=backbone or config['backbone'])


@MODELS.register_module()
class PlainNeck(nn.ModuleList):
    """A neck without checks of its own."""

    def __init__(self, in_channels=WIDTHS, out_channels=16):
        super().__init__(nn.Conv3d(width, out_channels, 1) for width in in_channels)

    def change(self, feat):
        return feat

    def forward(self, feats):
        pairs = zip(self, feats, strict=True)
        return [self.change(layer(feat)) for layer, feat in pairs]


@MODELS.register_module()
class ReadsValues(PlainNeck):
    def change(self, feat):
        random.random(), np.random.rand(), torch.rand(1)
        return feat * float(feat.mean() > -100)


@MODELS.register_module()
class OneMap(nn.Conv3d):
    def __init__(self):
        super().__init__(3, 16, 1)

    def forward(self, clips):
        return super().forward(clips)[..., ::4, ::4]


TWO_NECKS = [NECK, NECK | dict(in_channels=[16] * 4)]


@pytest.mark.parametrize(
    'config, necks',
    [
        (detector(TWO_NECKS), ['model.neck[0]', 'model.neck[1]']),
        (detector(dict(type='ReadsValues')), ['model.neck']),
        (detector(None, dict(type='OneMap')), []),
    ],
    ids=['two necks', 'without meta kernel', 'none'],
)
def test_shapes_are_those_of_a_run(config, necks):
    model = build_detector(config).eval()
    clip = torch.zeros(CLIP)
    shapes = trace_shapes(model, clip)
    assert [part.key for part in shapes.parts] == ['model.backbone', *necks]
    feats = model.extract_feat(clip)
    assert [feat.shape for feat in shapes.feats] == [feat.shape for feat in feats]


FPN = dict(type='mmdet.FPN', in_channels=WIDTHS, out_channels=16, num_outs=4)
RESNET = dict(type='mmdet.ResNet', depth=18, base_channels=4)
SLOW_ONLY = dict(tiny_detector()['backbone'], in_channels=4)
NARROW = dict(type='PlainNeck', in_channels=[4, 8, 16])


@pytest.mark.parametrize(  # more: bad_input.txt
    'settings, sentence',
    [
        (dict(neck=NARROW), r'^model\.neck, a PlainNeck, fails on \[1x4x2x16x24, '),
        (dict(neck=FPN), 'a FPN, fails on .* FramewiseNeck'),
        (dict(backbone=RESNET), 'a ResNet, fails on 1x3x2x64x96 .* FramewiseBackbone'),
        (
            dict(backbone=SLOW_ONLY),
            'a ResNet3dSlowOnly, fails on .*change its settings',
        ),
    ],
    ids=['without checks', 'neck of images', 'backbone of images', 'backbone of clips'],
)
def test_parts_that_do_not_fit(settings, sentence):
    model = MODELS.build(detector(**settings))
    with pytest.raises(UserError, match=sentence) as raised:
        model.check_feats(trace_shapes(model, torch.zeros(CLIP)).feats, CLIP[-2:])
    assert '\n' not in str(raised.value)
