"""Backbones yield levels with time: of the hosts, wrapped, and this package's own."""

import copy
import pickle

import pytest
import torch
from torch import nn

from stmixer_mm.models import (
    CheckpointedVisionTransformer,
    NonLocalBlock3D,
    ResNet3dSlowFastPyramid,
)
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


def pyramid(frames, *channels):
    """Levels of clips 4x64x96 at strides 4, 8, 16 and 32."""
    cells = [(16, 24), (8, 12), (4, 6), (2, 3)]
    return [(c, frames, *size) for c, size in zip(channels, cells, strict=False)]


BACKBONES = {  # of which there is no experiment; with the levels
    'swin': (
        dict(type='mmdet.SwinTransformer', embed_dims=12, depths=(1, 1, 1, 1))
        | dict(num_heads=(1, 2, 3, 4)),
        pyramid(4, 12, 24, 48, 96),
    ),
    'cspnext': (
        dict(type='mmdet.CSPNeXt', deepen_factor=0.17, widen_factor=0.125),
        [(32, 4, 8, 12), (64, 4, 4, 6), (128, 4, 2, 3)],
    ),
    'tanet': (
        dict(type='mmaction.TANet', depth=50, num_segments=4, num_stages=2)
        | dict(strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
        pyramid(4, 256, 512),
    ),
    'tsm of mobilenet': (
        dict(type='TappedBackbone', taps=['layer2', 'layer7'], drop=['conv2'])
        | dict(backbone=MOBILE_NET),
        [(8, 4, 16, 24), (80, 4, 2, 3)],
    ),
}


def build(config):
    model = MODELS.build(config)
    model.init_weights()
    return model


def framewise(backbone):
    return build(dict(type='FramewiseBackbone', backbone=backbone))


def tap(backbone, taps, **settings):
    return build(dict(type='TappedBackbone', backbone=backbone, taps=taps, **settings))


def without_gradient(model, levels):
    sum(feat.square().mean() for feat in levels).backward()
    return [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize('backbone, shapes', BACKBONES.values(), ids=BACKBONES)
def test_backbones_for_images(backbone, shapes):
    model = framewise(backbone).train()  # some of the hosts return nothing
    levels = model(torch.randn(2, 3, 4, 64, 96))
    assert [tuple(feat.shape) for feat in levels] == [(2, *shape) for shape in shapes]
    assert not without_gradient(model, levels)


@torch.no_grad()
def test_frames_are_independent_without_shifts():
    model = framewise(dict(type='mmdet.ResNet', depth=18, base_channels=8)).eval()
    clips = torch.randn(2, 3, 3, 32, 64)
    levels = model(clips)
    for t in range(3):
        alone = model.backbone(clips[:, :, t])
        torch.testing.assert_close(tuple(feat[:, :, t] for feat in levels), alone)


@torch.no_grad()
def test_shifts_stay_inside_a_clip():
    model = framewise(dict(TSM, num_segments=4)).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    changed = clips.clone()
    changed[0, :, 1] = 0
    before, after = model(clips)[0], model(changed)[0]
    torch.testing.assert_close(before[1:], model(clips[1:])[0])
    differs = (before != after).flatten(3).any(3).any(1)
    assert differs[0].any() and differs[0, [0, 2]].all()  # the neighbours in time
    assert not differs[1].any()
    with pytest.raises(ValueError, match='num_segments=4 but the clips have 3 frames'):
        model(torch.zeros(2, 3, 3, 32, 32))


def test_a_backbone_for_images_may_pool_time():
    model = framewise(dict(TSM, num_segments=4, temporal_pool=True))
    levels = model(torch.randn(2, 3, 4, 32, 32))
    assert [feat.size(2) for feat in levels] == [4, 2, 2, 2]


@torch.no_grad()
def test_taps_are_what_the_host_returns():
    model = tap(dict(SLOW_ONLY, out_indices=(0, 1, 2, 3)), LAYERS).eval()
    clips = torch.randn(1, 3, 2, 32, 32)
    expected = model.backbone(clips)
    for tapped in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(tapped(clips), expected, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in model.modules())


@torch.no_grad()
def test_taps_with_time_in_the_batch():
    c2d = dict(type='mmaction.C2D', depth=18, num_stages=1, strides=(1,))
    c2d |= dict(dilations=(1,), out_indices=(0,))
    clips = torch.randn(2, 3, 4, 32, 32)
    model = tap(c2d, ['layer1'], time_in_batch=True).eval()
    (feat,) = model(clips)
    torch.testing.assert_close(model.backbone.maxpool3d_2(feat), model.backbone(clips))


def test_dropping_leaves_no_parameter_without_gradient():
    clips = torch.randn(1, 3, 4, 32, 32)
    x3d = dict(type='mmaction.X3D', gamma_w=0.3, gamma_b=2.25, gamma_d=0.1)
    kept, dropped = tap(x3d, LAYERS), tap(x3d, LAYERS, drop=['conv5'])
    assert len(without_gradient(kept, kept(clips))) == 3  # a convolution and its norm
    assert not without_gradient(dropped, dropped(clips))
    uniformer = dict(type='mmaction.UniFormer', pretrained2d=False, depth=[1, 2, 1, 1])
    uniformer |= dict(embed_dim=[8, 16, 16, 16], head_dim=8)
    last = ['patch_embed3', 'blocks3', 'patch_embed4', 'blocks4', 'norm']
    model = tap(uniformer, ['blocks1', 'blocks2'], drop=last)
    assert model.find('blocks2') is model.backbone.blocks2[1]
    levels = model(clips)
    assert [feat.shape[1:] for feat in levels] == [(8, 2, 8, 8), (16, 2, 4, 4)]
    assert not without_gradient(model, levels)


def test_a_recognisers_checkpoint_fits_the_wrapper(tmp_path):
    state = {f'backbone.{key}': v for key, v in build(SLOW_ONLY).state_dict().items()}
    state['backbone.conv1.conv.weight'] += 1
    torch.save(dict(state_dict=state), tmp_path / 'recogniser.pth')
    weights = dict(type='Pretrained', checkpoint=str(tmp_path / 'recogniser.pth'))
    loaded = tap(SLOW_ONLY, ['layer1'], init_cfg=weights).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


@pytest.mark.parametrize(
    'frames, expected',
    [(32, [0, 4, 8, 13, 17, 22, 26, 31]), (8, [0, 7]), (4, [0])],
)
def test_slow_frames_run_from_the_first_to_the_last(frames, expected):
    with torch.device('meta'):
        model = ResNet3dSlowFastPyramid(depth=50)
    clips = torch.arange(frames).float().view(1, 1, frames, 1, 1)
    assert model.slow_frames(clips).flatten().tolist() == expected


def test_slowfast_of_the_release():
    """Deeper nets inflate the first six blocks of res4; non-local blocks follow some."""
    with torch.device('meta'):
        model = ResNet3dSlowFastPyramid(
            depth=101, non_local_blocks=(1, 4), norm_eval=True
        )
    for pathway in (model.slow_path, model.fast_path):
        kernels = [block.conv1.conv.kernel_size[0] for block in pathway.layer3]
        assert kernels == [3] * 6 + [1] * 17
    blocks = [
        name for name, m in model.named_modules() if isinstance(m, NonLocalBlock3D)
    ]
    assert blocks == [f'slow_path.layer3.{block}.non_local_block' for block in (1, 4)]
    norms = [m for m in model.train().modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms and not any(norm.training for norm in norms)


def test_non_local_block_starts_as_identity():
    block = NonLocalBlock3D(8)
    block.init_weights()
    feat = torch.randn(2, 8, 2, 4, 6)
    torch.testing.assert_close(block(feat), feat)
    nn.init.ones_(block.bn.weight)
    assert not torch.allclose(block(feat), feat)


def test_checkpointing_changes_nothing_but_memory():
    clip, gradients = torch.randn(1, 3, 4, 48, 32), []
    sizes = dict(img_size=32, embed_dims=16, depth=2, num_heads=2, num_frames=4)
    for with_cp in (True, False):
        torch.manual_seed(0)
        model = CheckpointedVisionTransformer(
            **sizes, return_feat_map=True, use_mean_pooling=False, with_cp=with_cp
        )
        feat = model.train()(clip)
        assert feat.shape == (1, 16, 2, 3, 2)
        feat.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)
    with pytest.raises(ValueError, match='did you mean embed_dims'):
        CheckpointedVisionTransformer(embed_dim=16)
