"""Backbones of timm for images."""

import pytest
import torch
from mmengine.config import Config

from stmixer_mm.apis.config import check_arguments
from stmixer_mm.errors import UserError
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.registry import MODELS

pytest.importorskip('timm')


class Levels(ClipDetector):
    def check_feats(self, feats, pad_shape):
        pass

    loss = predict = _forward = None


FAMILIES = {
    'resnet10t': {},
    'mobilenetv3_small_050': dict(out_indices=(1, 2, 3)),
    # Channels last, and sizes that are fixed.
    'swin_tiny_patch4_window7_224': dict(img_size=64, window_size=2, embed_dim=24),
}


@pytest.mark.parametrize(('name', 'options'), FAMILIES.items())
def test_the_neck_takes_its_widths_from_a_backbone_of_timm(name, options):
    config = dict(type=f'timm/{name}', **options)
    backbone = dict(type='FramewiseBackbone', backbone=config)
    neck = dict(type='ChannelProjection3D', out_channels=8)
    check_arguments(Config(dict(model=dict(type='STMixer', backbone=backbone))))
    detector = Levels(backbone=backbone, neck=neck).eval()
    image_backbone = detector.backbone.backbone
    assert detector.neck.in_channels == tuple(image_backbone.channels)
    clips = torch.rand(1, 3, 2, 64, 64)
    feats = detector.extract_feat(clips)
    sides = [64 // stride for stride in image_backbone.strides]
    assert [feat.shape for feat in feats] == [(1, 8, 2, side, side) for side in sides]
    alone = detector.extract_feat(clips[:, :, 1:])
    torch.testing.assert_close([feat[:, :, 1:] for feat in feats], [*alone])


def test_an_unknown_backbone_of_timm_is_named():
    with pytest.raises(UserError, match=r"'timm/resnet_of_mine' cannot be built"):
        MODELS.build(dict(type='timm/resnet_of_mine'))


def test_norms_and_frozen_parts_are_not_trained():
    settings = dict(norm_eval=True, frozen=['model.conv1'])
    config = dict(type='FramewiseBackbone', backbone=dict(type='timm/resnet10t'))
    backbone = MODELS.build(config | settings).train()
    weights = {name: value.clone() for name, value in backbone.state_dict().items()}
    sum(level.sum() for level in backbone(torch.rand(1, 3, 1, 64, 64))).backward()
    trained = {n for n, p in backbone.named_parameters() if p.grad is not None}
    assert 'backbone.model.layer1.0.conv1.weight' in trained
    assert not any('.bn' in name or 'model.conv1' in name for name in trained)
    torch.testing.assert_close(dict(backbone.state_dict()), weights)
