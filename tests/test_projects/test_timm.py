"""Backbones of timm for images."""

import pytest
import torch
from mmengine.config import Config

from stmixer_mm.apis.config import check_arguments
from stmixer_mm.errors import UserError
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.projects.backbones.timm import TimmBackbone
from stmixer_mm.registry import MODELS

pytest.importorskip('timm')
SIZE = 64, 64


class Levels(ClipDetector):
    def check_feats(self, feats, pad_shape):
        pass

    loss = predict = _forward = None


FAMILIES = {
    'resnet10t': {},
    'mobilenetv3_small_050': dict(out_indices=(1, 2, 3)),
    # Channels last, and sizes that are fixed.
    'swin_tiny_patch4_window7_224': dict(img_size=SIZE, window_size=2, embed_dim=24),
}


@pytest.mark.parametrize(('name', 'options'), FAMILIES.items())
def test_the_neck_takes_its_widths_from_a_backbone_of_timm(name, options):
    backbone = dict(
        type='FramewiseBackbone', backbone=dict(type=f'timm/{name}', **options)
    )
    neck = dict(type='ChannelProjection3D', out_channels=8)
    check_arguments(Config(dict(model=dict(type='STMixer', backbone=backbone))))
    detector = Levels(backbone=backbone, neck=neck).eval()
    image_backbone = detector.backbone.backbone
    assert detector.neck.in_channels == tuple(image_backbone.channels)
    clips = torch.rand(1, 3, 2, *SIZE)
    feats = detector.extract_feat(clips)
    sizes = [
        (SIZE[0] // stride, SIZE[1] // stride) for stride in image_backbone.strides
    ]
    assert [feat.shape[-2:] for feat in feats] == sizes
    assert all(feat.shape[:3] == (1, 8, 2) for feat in feats)
    alone = detector.extract_feat(clips[:, :, 1:])
    for feat, of_frame in zip(feats, alone, strict=True):
        torch.testing.assert_close(feat[:, :, 1:], of_frame)


def test_an_unknown_backbone_of_timm_is_named():
    with pytest.raises(UserError, match=r"'timm/resnet_of_mine' cannot be built"):
        MODELS.build(dict(type='timm/resnet_of_mine'))


def test_norms_and_frozen_parts_are_not_trained():
    backbone = MODELS.build(
        dict(
            type='FramewiseBackbone',
            backbone=dict(type='timm/resnet10t'),
            norm_eval=True,
            frozen=['model.conv1'],
        )
    ).train()
    assert isinstance(backbone.backbone, TimmBackbone)
    weights = {name: value.clone() for name, value in backbone.state_dict().items()}
    sum(level.sum() for level in backbone(torch.rand(1, 3, 1, *SIZE))).backward()
    trained = {n for n, p in backbone.named_parameters() if p.grad is not None}
    assert 'backbone.model.layer1.0.conv1.weight' in trained
    assert not any('.bn' in name or 'model.conv1' in name for name in trained)
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(value, weights[name])
