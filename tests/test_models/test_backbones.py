"""Backbones yield levels with time: of the hosts, wrapped, and this package's own."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stmixer_mm.errors import UserError
from stmixer_mm.models import CheckpointedVisionTransformer, NonLocalBlock3D
from stmixer_mm.registry import MODELS

SLOW_ONLY = dict(
    type='mmaction.ResNet3dSlowOnly', depth=18, base_channels=4, pretrained=None
)
TSM = dict(
    type='mmaction.ResNetTSM', depth=18, pretrained2d=False, out_indices=(0, 1, 2, 3)
)
MOBILE_NET = dict(type='mmaction.MobileNetV2TSM', num_segments=4, widen_factor=0.25)
MOBILE_NET |= dict(pretrained2d=False)
LAYERS = ['layer1', 'layer2', 'layer3', 'layer4']


def wrap(wrapper, backbone, **settings):
    model = MODELS.build(dict(type=wrapper, backbone=backbone, **settings))
    model.init_weights()
    return model


framewise = partial(wrap, 'FramewiseBackbone')
tap = partial(wrap, 'TappedBackbone')


def without_gradient(model, levels):
    sum(feat.square().mean() for feat in levels).backward()
    return [name for name, p in model.named_parameters() if p.grad is None]


@torch.no_grad()
def test_shifts_stay_inside_a_clip():
    model = framewise(dict(TSM, num_segments=4)).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    changed = clips.clone()
    changed[0, :, 1] = 0
    feats, changed_feats = model(clips)[0], model(changed)[0]
    assert_close(feats[1:], model(clips[1:])[0])
    differs = (feats != changed_feats).flatten(3).any(3).any(1)
    assert differs[0].any() and differs[0, [0, 2]].all()  # the neighbours in time
    assert not differs[1].any()
    with pytest.raises(ValueError, match='num_segments=4 but the clips have 3 frames'):
        model(torch.zeros(2, 3, 3, 32, 32))


def test_taps_of_a_backbone_for_images():
    tapped = dict(type='TappedBackbone', backbone=MOBILE_NET, taps=['layer2', 'layer7'])
    model = framewise(dict(tapped, drop=['conv2']))
    levels = model(torch.randn(2, 3, 4, 64, 96))
    assert [feat.shape[1:] for feat in levels] == [(8, 4, 16, 24), (80, 4, 2, 3)]
    assert not without_gradient(model, levels)
    pooling = framewise(dict(TSM, num_segments=4, temporal_pool=True))
    levels = pooling(torch.randn(2, 3, 4, 32, 32))
    assert [feat.size(2) for feat in levels] == [4, 2, 2, 2]


@torch.no_grad()
def test_taps_are_what_the_host_returns():
    model = tap(dict(SLOW_ONLY, out_indices=(0, 1, 2, 3)), taps=LAYERS).eval()
    clips = torch.randn(1, 3, 2, 32, 32)
    expected = model.backbone(clips)
    for tapped in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(tapped(clips), expected, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in model.modules())


@torch.no_grad()
def test_taps_with_time_in_the_batch():
    c2d = dict(type='mmaction.C2D', depth=18, num_stages=1, strides=(1,))
    c2d |= dict(dilations=(1,), out_indices=(0,))
    clips = torch.randn(2, 3, 4, 32, 32)
    model = tap(c2d, taps=['layer1'], time_in_batch=True).eval()
    (feat,) = model(clips)
    assert_close(model.backbone.maxpool3d_2(feat), model.backbone(clips))


@torch.no_grad()
def test_the_only_level_is_a_level_too():
    clips = torch.randn(1, 3, 2, 32, 32)
    resnet = dict(type='mmdet.ResNet', depth=18, base_channels=4, out_indices=(3,))
    for model in (framewise(resnet), tap(SLOW_ONLY, taps=['layer4'])):
        (level,) = model(clips)
        assert level.dim() == 5 and len(level) == 1


def test_dropping_leaves_no_parameter_without_gradient():
    clips = torch.randn(1, 3, 4, 32, 32)
    x3d = dict(type='mmaction.X3D', gamma_w=0.3, gamma_b=2.25, gamma_d=0.1)
    full, dropped = tap(x3d, taps=LAYERS), tap(x3d, taps=LAYERS, drop=['conv5'])
    assert len(without_gradient(full, full(clips))) == 3  # a convolution and its norm
    assert not without_gradient(dropped, dropped(clips))


def test_non_local_block_starts_as_identity():
    block = NonLocalBlock3D(8)
    block.init_weights()
    feat = torch.randn(2, 8, 2, 4, 6)
    assert_close(block(feat), feat)
    nn.init.ones_(block.bn.weight)
    assert not torch.allclose(block(feat), feat)


def test_checkpointing_changes_nothing_but_memory():
    clip, gradients = torch.randn(1, 3, 4, 48, 32), []
    settings = dict(img_size=32, embed_dims=16, depth=2, num_heads=2, num_frames=4)
    settings['return_feat_map'] = True
    for with_cp in (True, False):
        torch.manual_seed(0)
        options = settings | dict(use_mean_pooling=False, with_cp=with_cp)
        model = CheckpointedVisionTransformer(**options)
        feat = model(clip)
        assert feat.shape == (1, 16, 2, 3, 2)
        feat.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert_close(*gradients)
    pooled = CheckpointedVisionTransformer(**settings)
    assert not without_gradient(pooled, [pooled(clip)])
    with pytest.raises(ValueError, match='did you mean embed_dims'):
        CheckpointedVisionTransformer(embed_dim=16)


def test_efficientnet_lite_takes_weights_in_the_order_of_its_layers(tmp_path):
    lite, path = MODELS.build(dict(type='EfficientNetLite0')), tmp_path / 'lite.pth'
    lite.eval()
    levels = lite(torch.zeros(1, 3, 64, 64))
    sizes = [(24, 16), (40, 8), (112, 4), (320, 2)]
    assert [(level.shape[1], level.shape[-1]) for level in levels] == sizes
    renamed = {
        f'module_{number}.{name.rpartition(".")[2]}': value
        for number, (name, value) in enumerate(lite.state_dict().items())
    }
    torch.save({**renamed, 'head.weight': torch.zeros(3)}, path)
    twin = MODELS.build(dict(type='EfficientNetLite0', checkpoint=str(path)))
    twin.init_weights()
    assert_close(twin.state_dict(), lite.state_dict())
    torch.save({'w': torch.zeros(3)}, path)
    with pytest.raises(UserError, match='does not fit EfficientNet-Lite0'):
        twin.init_weights()
