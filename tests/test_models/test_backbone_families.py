"""Each family of backbones yields maps with time, in its experiment and by itself."""

import copy
import pickle
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from stmixer_mm.models.backbones.positions import resize_positions
from stmixer_mm.registry import MODELS

EXPERIMENTS = Path(__file__).parents[2] / 'configs' / 'experiments'
SLOW_ONLY = dict(
    type='mmaction.ResNet3dSlowOnly', depth=18, base_channels=4, pretrained=None
)
OMNI = dict(type='mmaction.OmniResNet', layers=[1, 1, 1, 1])
TSM = dict(
    type='mmaction.ResNetTSM', depth=18, pretrained2d=False, out_indices=(0, 1, 2, 3)
)
MOBILE_NET = dict(type='mmaction.MobileNetV2TSM', num_segments=4, widen_factor=0.25)
MOBILE_NET |= dict(pretrained2d=False)
LAYERS = ['layer1', 'layer2', 'layer3', 'layer4']


def pyramid(frames, *channels):
    """Levels at strides 4, 8, 16 and 32."""
    cells = [(16, 24), (8, 12), (4, 6), (2, 3)]
    return [(c, frames, *size) for c, size in zip(channels, cells, strict=False)]


# Channels, frames and cells of the levels of clips 4x64x96.
FAMILIES = {
    'i3d': pyramid(2, 16, 32),
    'r2plus1d': [(16, 4, 16, 24), (32, 2, 8, 12)],
    'csn': [(32, 4, 16, 24), (64, 2, 8, 12), (128, 1, 4, 6)],
    'c2d': [(64, 4, 15, 23), (128, 2, 8, 12)],
    'slowfast': pyramid(1, 288, 576, 1152, 2304),
    'x3d': pyramid(4, 16, 32, 64, 128),
    'mvit': pyramid(2, 16, 32, 64),
    'swin3d': pyramid(2, 24, 48, 96),
    'uniformer': pyramid(2, 16, 32, 64, 128),
    'uniformerv2': [(32, 4, 4, 6)],
    'timesformer': [(32, 4, 4, 6)],
    'vit': [(32, 2, 4, 6)],
    'tsm': pyramid(4, 64, 128, 256, 512),
    'resnet2d': pyramid(4, 16, 32, 64, 128),
    'pvt2d': pyramid(4, 16, 32, 80, 128),
}


def build(config, scope='mmaction'):
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(config)
    model.init_weights()
    return model


def wrap(kind, backbone, **settings):
    return build(dict(type=kind, backbone=backbone, **settings))


def tap(backbone, taps, **settings):
    return wrap('TappedBackbone', backbone, taps=taps, **settings)


def without_gradient(model, maps):
    sum(feat.square().mean() for feat in maps).backward()
    return [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize('name', FAMILIES)
def test_maps_of_a_family(name):
    config = Config.fromfile(EXPERIMENTS / f'stmixer_tiny-{name}_toy.py')
    # The other host's scope, in which nothing that a backbone builds is found by luck.
    model = build(config.model.backbone, scope='mmdet')
    model.train()
    maps = model(torch.randn(2, 3, 4, 64, 96))
    maps = [maps] if isinstance(maps, torch.Tensor) else maps
    assert [tuple(feat.shape[1:]) for feat in maps] == FAMILIES[name]
    assert not without_gradient(model, maps)


@pytest.mark.parametrize(
    'backbone, shapes',
    [
        (
            dict(type='mmdet.SwinTransformer', embed_dims=12, depths=(1, 1, 1, 1))
            | dict(num_heads=(1, 2, 3, 4)),
            [(12, 16, 24), (24, 8, 12), (48, 4, 6), (96, 2, 3)],
        ),
        (
            dict(type='mmdet.CSPNeXt', deepen_factor=0.17, widen_factor=0.125),
            [(32, 8, 12), (64, 4, 6), (128, 2, 3)],
        ),
        (
            dict(type='mmdet.MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 7)),
            [(8, 16, 24), (8, 8, 12), (1280, 2, 3)],
        ),
        (
            dict(type='mmaction.ResNet', depth=18, out_indices=(1, 3)),
            [(128, 8, 12), (512, 2, 3)],
        ),
        (
            dict(type='mmaction.TANet', depth=50, num_segments=4, num_stages=2)
            | dict(strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
            [(256, 16, 24), (512, 8, 12)],
        ),
        (
            dict(type='stmixer_mm.TappedBackbone', taps=['layer2', 'layer7'])
            | dict(drop=['conv2'], backbone=MOBILE_NET),
            [(8, 16, 24), (80, 2, 3)],
        ),
    ],
    ids=['swin', 'cspnext', 'mobilenetv2', 'resnet', 'tanet', 'mobilenetv2-tsm'],
)
def test_levels_of_backbones_for_frames(backbone, shapes):
    model = wrap('FramewiseBackbone', backbone)
    feats = model(torch.randn(2, 3, 4, 64, 96))
    assert [tuple(feat.shape) for feat in feats] == [
        (2, channels, 4, *cells) for channels, *cells in shapes
    ]
    assert not without_gradient(model, feats)


@pytest.mark.parametrize(
    'backbone, settings, shapes',
    [
        (OMNI, dict(taps=LAYERS[:2], drop=LAYERS[2:]), [(256, 4, 8), (512, 4, 4)]),
        (
            dict(type='mmaction.C3D'),
            dict(taps=['conv2a', 'conv4b'])
            | dict(drop=['pool4', 'conv5a', 'conv5b', 'pool5', 'fc6', 'fc7']),
            [(128, 4, 16), (512, 1, 4)],
        ),
    ],
    ids=['omni', 'c3d'],
)
def test_maps_of_tapped_backbones(backbone, settings, shapes):
    model = tap(backbone, **settings)
    maps = model(torch.randn(2, 3, 4, 32, 32))
    found = [(2, channels, frames, n, n) for channels, frames, n in shapes]
    assert [tuple(feat.shape) for feat in maps] == found
    assert not without_gradient(model, maps)


def test_frames_are_seen_one_by_one():
    model = wrap('FramewiseBackbone', dict(type='mmdet.ResNet', depth=18)).eval()
    clips = torch.randn(2, 3, 3, 32, 64)
    with torch.no_grad():
        maps = model(clips)
        for t in range(3):
            alone = model.backbone(clips[:, :, t])
            torch.testing.assert_close(tuple(feat[:, :, t] for feat in maps), alone)


def test_shifts_stay_inside_a_clip():
    model = wrap('FramewiseBackbone', dict(TSM, num_segments=4)).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    changed = clips.clone()
    changed[0, :, 1] = 0
    with torch.no_grad():
        before, after = model(clips)[0], model(changed)[0]
        torch.testing.assert_close(before[1:], model(clips[1:])[0])
    differs = (before != after).flatten(3).any(3).any(1)
    assert differs[0].any() and differs[0, [0, 2]].all()  # the neighbours in time
    assert not differs[1].any()


def test_pooled_time_of_a_backbone_for_frames():
    model = wrap('FramewiseBackbone', dict(TSM, num_segments=4, temporal_pool=True))
    feats = model(torch.randn(2, 3, 4, 32, 32))
    assert [feat.size(2) for feat in feats] == [4, 2, 2, 2]


def test_a_backbone_for_another_number_of_frames():
    model = wrap('FramewiseBackbone', dict(TSM, num_segments=8))
    with pytest.raises(ValueError, match='num_segments=8 but the clips have 4 frames'):
        model(torch.zeros(2, 3, 4, 32, 32))


def test_what_is_not_a_feature_map_of_each_frame():
    model = wrap('FramewiseBackbone', dict(type='mmdet.ResNet', depth=18))
    for shape in [(12, 8, 4, 4), (3, 8, 4, 4), (4, 8)]:  # too many, no clips, vectors
        model.backbone.forward = lambda frames, shape=shape: torch.zeros(shape)
        sentence = re.escape(f'ResNet turned 4 frames into {shape}, not ')
        with pytest.raises(ValueError, match=sentence):
            model(torch.zeros(2, 3, 2, 32, 32))


def test_taps_are_what_the_host_returns():
    model = tap(dict(SLOW_ONLY, out_indices=(0, 1, 2, 3)), LAYERS).eval()
    clips = torch.randn(1, 3, 2, 32, 32)
    with torch.no_grad():
        expected = model.backbone(clips)
        torch.testing.assert_close(model(clips), expected, rtol=0, atol=0)


def test_taps_with_time_in_the_batch():
    c2d = dict(type='mmaction.C2D', depth=18, num_stages=1, strides=(1,))
    c2d |= dict(dilations=(1,), out_indices=(0,))
    model = tap(c2d, ['conv1', 'maxpool3d_2'], time_in_batch=False).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    with pytest.raises(ValueError, match=r"'conv1' of C2D yields 8x64x16x16; tap"):
        model(clips)
    model = tap(c2d, ['layer1'], time_in_batch=True).eval()
    with torch.no_grad():
        (feat,) = model(clips)
        torch.testing.assert_close(
            model.backbone.maxpool3d_2(feat), model.backbone(clips)
        )


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(taps=['layr1']), "Only has no submodule 'layr1'; did you mean layer1"),
        (dict(taps=['x']), "no submodule 'x'; name one of conv1, maxpool"),
        (dict(taps=['']), "no submodule ''"),
        (dict(taps=['layer1'], drop=['layer5']), "no submodule 'layer5'"),
        (
            dict(taps=['layer4.1'], drop=['layer4']),
            "drop takes out 'layer4' but taps needs 'layer4.1'",
        ),
    ],
)
def test_names_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        wrap('TappedBackbone', SLOW_ONLY, **settings)


def test_a_tap_that_does_not_run():
    with pytest.raises(ValueError, match="'pool2d' of OmniResNet yields a NoneType;"):
        tap(OMNI, ['pool2d'])(torch.zeros(2, 3, 1, 32, 32))


def test_hooks_do_not_outlive_a_pass():
    model = tap(SLOW_ONLY, ['layer1']).eval()
    clips = torch.randn(1, 3, 2, 32, 32)
    with torch.no_grad():
        expected = model(clips)[0]
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(copied(clips)[0], expected)
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 5, 2, 32, 32))
    assert not any(module._forward_hooks for module in model.modules())


def test_dropping_leaves_no_parameter_without_gradient():
    x3d = dict(type='mmaction.X3D', gamma_w=0.3, gamma_b=2.25, gamma_d=0.1)
    clips = torch.randn(1, 3, 2, 32, 32)
    kept, dropped = tap(x3d, LAYERS), tap(x3d, LAYERS, drop=['conv5'])
    assert without_gradient(kept, kept(clips)) == [
        f'backbone.conv5.{name}' for name in ('conv.weight', 'bn.weight', 'bn.bias')
    ]
    assert not without_gradient(dropped, dropped(clips))


def test_dropping_a_list_of_modules():
    uniformer = dict(type='mmaction.UniFormer', pretrained2d=False, depth=[1, 2, 1, 1])
    uniformer |= dict(embed_dim=[8, 16, 16, 16], head_dim=8)
    last = ['patch_embed3', 'blocks3', 'patch_embed4', 'blocks4', 'norm']
    model = tap(uniformer, ['blocks1', 'blocks2'], drop=last)
    assert model.find('blocks2') is model.backbone.blocks2[1]
    maps = model(torch.randn(1, 3, 4, 32, 32))
    assert [feat.shape[1:] for feat in maps] == [(8, 2, 8, 8), (16, 2, 4, 4)]
    assert not without_gradient(model, maps)


def test_a_recognisers_checkpoint_fits_the_wrapper(tmp_path):
    source = build(SLOW_ONLY)
    path = str(tmp_path / 'recogniser.pth')
    state = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    torch.save(dict(state_dict=state), path)
    loaded = tap(
        SLOW_ONLY, ['layer1'], init_cfg=dict(type='Pretrained', checkpoint=path)
    )
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, state[key])


def make_timesformer(attention_type='divided_space_time'):
    host = dict(type='mmaction.TimeSformer', num_frames=3, img_size=(32, 48))
    host |= dict(patch_size=16, embed_dims=16, num_heads=2, num_transformer_layers=2)
    model = wrap('TimeSformerMap', dict(host, attention_type=attention_type)).eval()
    # Some parts start at zero, which would hide what they do.
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def host_tokens(host, module, clips):
    """What a part of the host hands on while the host runs."""
    kept = []
    handle = module.register_forward_hook(lambda *call: kept.append(call[-1]))
    host(clips)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize(
    'attention_type', ['divided_space_time', 'joint_space_time', 'space_only']
)
@torch.no_grad()
def test_the_map_of_a_timesformer_holds_its_tokens(attention_type):
    model = make_timesformer(attention_type)
    clips = torch.randn(2, 3, 3, 32, 48)
    (feat,) = model(clips)
    assert feat.shape == (2, 16, 3, 2, 3)
    host = model.backbone
    tokens = host.norm(host_tokens(host, host.transformer_layers, clips))
    for b, t, y, x in torch.cartesian_prod(*map(torch.arange, (2, 3, 2, 3))).tolist():
        patch = 3 * y + x
        if attention_type == 'space_only':
            expected = tokens[3 * b + t, 1 + patch]
        else:
            expected = tokens[b, 1 + 3 * patch + t]
        torch.testing.assert_close(feat[b, :, t, y, x], expected)


@pytest.mark.parametrize('attention_type', ['joint_space_time', 'space_only'])
def test_timesformers_parameters_are_all_trained(attention_type):
    model = make_timesformer(attention_type).train()
    maps = model(torch.randn(2, 3, 3, 64, 32))
    assert maps[0].shape == (2, 16, 3, 4, 2)
    assert not without_gradient(model, maps)


def test_clips_of_another_length_than_timesformers():
    with pytest.raises(ValueError, match='num_frames=3 but the clips have 4 frames'):
        make_timesformer()(torch.zeros(1, 3, 4, 32, 48))


@pytest.mark.parametrize('kind', ['TimeSformer', 'UniFormerV2'])
def test_a_wrapper_of_one_class(kind):
    with pytest.raises(
        ValueError, match=rf'{kind}Map wraps a {kind}, not a .*SlowOnly; use dict\('
    ):
        wrap(f'{kind}Map', SLOW_ONLY)


def uniformer_v2(**settings):
    host = dict(type='mmaction.UniFormerV2', input_resolution=32, width=16, layers=2)
    host |= dict(heads=2, n_layers=1, return_list=[1], n_dim=16, n_head=2, t_size=4)
    return host | dict(mlp_dropout=[0.0], clip_pretrained=False) | settings


@pytest.mark.parametrize('halved', [False, True])
@torch.no_grad()
def test_the_map_of_a_uniformer_v2_holds_its_tokens(halved):
    host_config = uniformer_v2(no_lmhra=False, temporal_downsample=halved)
    host, model = build(host_config).eval(), wrap('UniFormerV2Map', host_config).eval()
    for parameter in host.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.backbone.load_state_dict(host.state_dict(), strict=False)
    clips = torch.randn(2, 3, 4, 32, 32)
    (feat,) = model(clips)
    frames = 2 if halved else 4
    assert feat.shape == (2, 16, frames, 2, 2)
    tokens = host_tokens(host, host.transformer.resblocks[-1], clips)
    places = torch.cartesian_prod(*map(torch.arange, (2, frames, 2, 2))).tolist()
    for b, t, y, x in places:
        torch.testing.assert_close(
            feat[b, :, t, y, x], tokens[1 + 2 * y + x, frames * b + t]
        )


def test_uniformer_v2_trains_all_that_it_keeps():
    model = wrap('UniFormerV2Map', uniformer_v2(no_lmhra=False)).train()
    assert not without_gradient(model, model(torch.randn(2, 3, 3, 48, 48)))


def test_uniformer_v2_takes_square_frames_only():
    model = wrap('UniFormerV2Map', uniformer_v2(no_lmhra=False))
    with pytest.raises(ValueError, match='square frames, but these have 2x3 patches'):
        model(torch.zeros(1, 3, 4, 32, 48))


def test_resized_positions():
    table = torch.randn(1, 6, 4)
    assert resize_positions(table, (2, 3), (2, 3)) is table
    resized = resize_positions(table, (2, 3), (4, 3)).view(4, 3, 4)
    # Columns keep their order, and rows do not run into each other.
    by_column = table.view(2, 3, 4).mean(0)
    torch.testing.assert_close(resized.mean(0), by_column)
    flipped = table.view(2, 3, 4).flip(0).reshape(1, 6, 4)
    flipped = resize_positions(flipped, (2, 3), (4, 3)).view(4, 3, 4)
    torch.testing.assert_close(resized.flip(0), flipped)


@pytest.mark.parametrize('host', ['mmaction', 'mmdet'])
def test_the_docs_judge_every_backbone_of_a_host(host):
    text = (EXPERIMENTS.parents[1] / 'docs' / 'backbones.md').read_text()
    classes = import_module(f'{host}.models.backbones').__all__
    assert not [name for name in classes if f'`{host}.{name}`' not in text]
