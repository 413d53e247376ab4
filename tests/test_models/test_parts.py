"""Parts that do not fit are named when a model is built; those that fit are left alone."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny import build_detector, tiny_decoder, tiny_detector
from tiny_stmixer import write_project
from torch import nn

from stmixer_mm.apis import build_runner
from stmixer_mm.datasets.pipelines import clip_lengths
from stmixer_mm.models.part_checks import check_parts
from stmixer_mm.models.parts import Probe, frames_of, list_parts, meta_twin, unnoticed
from stmixer_mm.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'
WIDTHS = [4, 8, 16, 32]  # of the tiny backbone


def detector(neck='as it is', backbone=None, **decoder):
    """Config of the tiny detector with another neck or backbone."""
    config = tiny_detector({**tiny_decoder(), **decoder})
    config['backbone'] = backbone or config['backbone']
    config['neck'] = config['neck'] if neck == 'as it is' else neck
    return config


def projection(**settings):
    return dict(
        dict(type='ChannelProjection3D', in_channels=WIDTHS, out_channels=16),
        **settings,
    )


class Widths(nn.ModuleList):
    """A neck without checks of its own; subclasses say what it does to a map."""

    def __init__(self, in_channels=WIDTHS, out_channels=16):
        super().__init__(nn.Conv3d(width, out_channels, 1) for width in in_channels)

    def change(self, feat):
        return feat

    def forward(self, feats):
        assert len(feats) == len(self)
        return [
            self.change(layer(feat)) for layer, feat in zip(self, feats, strict=True)
        ]


@MODELS.register_module()
class PlainNeck(Widths):
    pass


@MODELS.register_module()
class SumNeck(Widths):
    def forward(self, feats):
        return sum(feat.mean() for feat in super().forward(feats))


@MODELS.register_module()
class TransposedNeck(Widths):
    """Its layers do not compare channels on the meta device."""

    def __init__(self, in_channels=WIDTHS):
        nn.ModuleList.__init__(
            self, (nn.ConvTranspose3d(width, 16, 1) for width in in_channels)
        )


@MODELS.register_module()
class ListedNeck(nn.Sequential):
    """Children that do not run one after the other."""

    def __init__(self):
        super().__init__(*Widths())

    def forward(self, feats):
        return [layer(feat) for layer, feat in zip(self, feats, strict=True)]


@MODELS.register_module()
class NeedsImages(Widths):
    def forward(self, images, feats):
        raise AssertionError


@MODELS.register_module()
class ReadsValues(Widths):
    def change(self, feat):
        return feat * float(feat.mean() > -100)


@MODELS.register_module()
class NeedsGPU(Widths):
    def change(self, feat):
        raise RuntimeError('fused_neck: only CUDA tensors, got 16 channels')


@MODELS.register_module()
class HasLock(Widths):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


@MODELS.register_module()
class HasLooseTensors(Widths):
    """Tensors that are neither parameters nor buffers, and a hook of its own."""

    def __init__(self):
        super().__init__()
        self.scales = dict(all=[torch.ones(1)])
        self.weight = self[0].weight.sum()  # not a leaf
        self.seen = []
        self.register_forward_hook(self.note)

    def note(self, module, inputs, outputs):
        self.seen.append(len(outputs))

    def change(self, feat):
        return feat * self.scales['all'][0] * self.weight


@MODELS.register_module()
class FixedFrames(Widths):
    def change(self, feat):
        assert feat.size(2) == 2, 'made for 2 frames'
        return feat


@MODELS.register_module()
class HalvesTime(nn.Module):
    """Two maps, each with half of the clip's frames."""

    def __init__(self, broken=False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv3d(3, width, 1) for width in (4, 8))
        self.broken = broken

    def forward(self, clips):
        if self.broken:
            raise ValueError('broken')
        if clips.size(2) % 2:
            raise ValueError('an even number of frames, please')
        halves = clips[:, :, ::2]
        return [
            layer(halves[..., ::stride, ::stride])
            for layer, stride in zip(self.layers, (4, 8), strict=True)
        ]


@MODELS.register_module()
class OneMap(nn.Conv3d):
    def __init__(self):
        super().__init__(3, 16, 1)

    def forward(self, clips):
        return super().forward(clips)[..., ::4, ::4]


HALVES = dict(backbone=dict(type='HalvesTime'), neck=projection(in_channels=[4, 8]))
CSN = dict(
    type='mmaction.ResNet3dCSN',
    depth=50,
    base_channels=4,
    pretrained=None,
    pretrained2d=False,
    bottleneck_mode='ir',
    with_pool2=False,
    norm_eval=True,
    out_indices=(0, 1),
)
FRAMEWISE = dict(type='FramewiseNeck')
MISFITS = {
    'widths': (
        dict(neck=projection(in_channels=[4, 8, 16, 64])),
        r'^The neck ChannelProjection3D has in_channels=\[4, 8, 16, 64\] but the '
        r'backbone ResNet3dSlowOnly yields 4 maps of 4, 8, 16, 32 channels; set '
        r'model\.neck\.in_channels=\[4, 8, 16, 32\]\.$',
    ),
    'number of maps': (
        dict(neck=projection(in_channels=[4, 8])),
        r'in_channels=\[4, 8\] but the backbone .* yields 4 maps of 4, 8, 16, 32',
    ),
    'without checks of its own': (
        dict(neck=dict(type='PlainNeck', in_channels=[4, 8, 16])),
        r'PlainNeck has in_channels=\[4, 8, 16\] but .* yields 4 maps',
    ),
    'unseen on the meta device': (
        dict(neck=dict(type='TransposedNeck', in_channels=[4, 8, 16, 16])),
        r'TransposedNeck has in_channels=\[4, 8, 16, 16\] but',
    ),
    'inner neck': (
        dict(
            neck=dict(
                FRAMEWISE,
                neck=dict(
                    type='mmdet.FPN', in_channels=[4, 8], out_channels=16, num_outs=2
                ),
            )
        ),
        r'FramewiseNeck has in_channels=\[4, 8\] .* set model\.neck\.neck\.in_channels=',
    ),
    'second neck': (
        dict(neck=[projection(out_channels=8), projection(in_channels=[16] * 4)]),
        r'The neck ChannelProjection3D has in_channels=\[16, 16, 16, 16\] but the neck '
        r'ChannelProjection3D yields 4 maps of 8, 8, 8, 8 channels; set '
        r'model\.neck\[1\]\.in_channels=\[8, 8, 8, 8\]\.$',
    ),
    'one width for all': (
        dict(
            neck=dict(
                FRAMEWISE, neck=dict(type='mmdet.BFP', in_channels=16, num_levels=4)
            )
        ),
        'in_channels=16 but .*; put a neck before it that brings them to one number',
    ),
    'one other width': (
        dict(
            neck=[
                projection(),
                dict(type='ViTPyramid3D', in_channels=8, out_channels=16),
            ]
        ),
        r'ViTPyramid3D has in_channels=8 but .*; set model\.neck\[1\]\.in_channels=16',
    ),
    'neck of images': (
        dict(
            neck=dict(type='mmdet.FPN', in_channels=WIDTHS, out_channels=16, num_outs=4)
        ),
        r"mmdet\.FPN takes maps of images .*model\.neck=dict\(type='FramewiseNeck', "
        r"neck=dict\(type='mmdet\.FPN', …\)\)",
    ),
    'backbone of images': (
        dict(backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4)),
        r"mmdet\.ResNet takes images .*backbone=dict\(type='FramewiseBackbone', "
        r"backbone=dict\(type='mmdet\.ResNet', …\)\)",
    ),
    'backbone of images by the clip': (
        dict(
            backbone=dict(
                type='mmaction.ResNetTSM',
                depth=18,
                num_segments=8,
                pretrained2d=False,
                out_indices=(0, 1),
            ),
        ),
        r'mmaction\.ResNetTSM takes images .*FramewiseBackbone',
    ),
    'backbone of clips in a wrapper': (
        dict(
            backbone=dict(
                type='FramewiseBackbone',
                backbone=dict(
                    type='mmaction.ResNet3d', depth=18, base_channels=4, pretrained=None
                ),
            ),
        ),
        'FramewiseBackbone runs ResNet3d on single frames, which takes clips',
    ),
    'width of the last map': (
        dict(neck=dict(type='ViTPyramid3D', in_channels=16, out_channels=16)),
        r'reads the last map alone, set model\.neck\.in_channels=32\.$',
    ),
    'frames that nobody set': (
        dict(num_frames=None),
        r'has num_frames=None; set model\.decoder\.num_frames to 1 or more\.$',
    ),
    'no query': (dict(num_queries=0), 'The decoder has num_queries=0; set'),
    'no stage': (dict(num_stages=0), 'The decoder has num_stages=0; set'),
    'one stride for all': (
        dict(strides=4),
        'strides=4; give one for each map in a list, or none',
    ),
    'more than maps': (
        dict(neck=dict(type='NeedsImages')),
        r'^The neck NeedsImages cannot take the 4 maps of 4, 8, 16, 32 channels of the '
        r'backbone ResNet3dSlowOnly \(.*missing 1 required',
    ),
    'no maps': (
        dict(neck=dict(type='SumNeck')),
        r'SumNeck yields a tensor .* but the decoder STMixerDecoder takes a list',
    ),
    'width of the decoder': (
        dict(neck=projection(out_channels=8)),
        r'ChannelProjection3D yields 4 maps of 8, 8, 8, 8 channels but the decoder '
        r'STMixerDecoder has embed_dims=16; set model\.decoder\.embed_dims=8, or '
        r'model\.neck\.out_channels=16\.$',
    ),
    'no neck': (
        dict(neck=None),
        r'ResNet3dSlowOnly yields 4 maps .* embed_dims=16; put a neck behind it',
    ),
    'stride': (
        dict(strides=(8, 16, 32, 64)),
        r'its stride is about 4, not strides\[0\]=8',
    ),
    'levels of different length': (
        dict(backbone=CSN, neck=projection(in_channels=[16, 32])),
        r'turns clips of \d+ frames into maps of (\d+), \d+ frames but the decoder '
        r'STMixerDecoder needs as many in all of them; set model\.neck\.num_frames=2\.$',
    ),
    'levels of different length, fused': (
        dict(
            backbone=CSN,
            neck=dict(type='FPN3D', in_channels=[16, 32], out_channels=16),
        ),
        r'FPN3D cannot take the 2 maps .*: The maps have .* fuses maps of equal length; '
        r"put dict\(type='ResampleTime', num_frames=\d+\) before it[^;]*\.$",
    ),
    'frames that no clip changes': (
        dict(neck=projection(num_frames=3)),
        r'into maps of 3 frames but the decoder STMixerDecoder has num_frames=2; set '
        r'model\.decoder\.num_frames=3 or model\.neck\.num_frames=2\.$',
    ),
}


@pytest.mark.parametrize('name', MISFITS)
def test_an_exchange_that_cannot_work(name):
    settings, sentence = MISFITS[name]
    with pytest.raises(ValueError, match=sentence) as raised:
        MODELS.build(detector(**settings))
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'settings',
    [
        {},
        HALVES,
        dict(backbone=dict(type='OneMap'), neck=None),
        dict(neck=dict(type='TransposedNeck')),
        dict(neck=dict(type='ListedNeck')),
        dict(neck=dict(type='ReadsValues')),
        dict(neck=dict(type='NeedsGPU')),
        dict(neck=dict(type='HasLock')),
        dict(neck=dict(type='HasLooseTensors')),
        dict(neck=dict(type='FixedFrames')),
        dict(backbone=dict(type='HalvesTime', broken=True)),
        dict(
            neck=[
                projection(),
                dict(
                    FRAMEWISE,
                    neck=dict(
                        type='mmdet.DyHead',
                        in_channels=16,
                        out_channels=16,
                        num_blocks=1,
                        zero_init_offset=False,
                    ),
                ),
            ]
        ),
        dict(
            neck=dict(
                FRAMEWISE,
                neck=dict(
                    type='mmdet.FPN_CARAFE',
                    in_channels=WIDTHS,
                    out_channels=16,
                    num_outs=4,
                ),
            )
        ),
    ],
    ids=[
        *(
            'as it is',
            'strides time',
            'one map by itself',
            'transposed',
            'listed',
            'reads values',
            'for GPUs',
        ),
        *('cannot be copied', 'loose tensors', 'fixed frames', 'fails by itself'),
        *('deformable convolutions', 'no operation for CPUs'),
    ],
)
def test_what_may_work_is_not_refused(settings):
    MODELS.build(detector(**settings))


def test_an_operation_without_meta_kernel_runs_for_real():
    """So that the parts behind it are checked."""
    neck = [dict(type='ReadsValues', out_channels=8), projection(in_channels=[16] * 4)]
    with pytest.raises(
        ValueError, match=r'\[16, 16, 16, 16\] but the neck ReadsValues'
    ):
        MODELS.build(detector(neck))


def snapshot(model):
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    return tensors, modes


@pytest.mark.parametrize('neck', ['ReadsValues', 'HasLooseTensors'])
@pytest.mark.parametrize('clip_len', [None, 2])
def test_a_check_leaves_everything_as_it_was(neck, clip_len, capfd):
    model = MODELS.build(detector(dict(type=neck))).train()
    tensors, modes = snapshot(model)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    capfd.readouterr()

    model.check_parts(clip_len=clip_len)
    after, modes_after = snapshot(model)
    assert modes_after == modes
    assert all(torch.equal(after[name], value) for name, value in tensors.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {parameter.device.type for parameter in model.parameters()} == {'cpu'}
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert getattr(model.neck, 'seen', []) == []
    assert torch.is_grad_enabled()
    assert capfd.readouterr() == ('', '')


def test_a_model_is_the_same_with_and_without_the_check(monkeypatch):
    checked = build_detector(detector(dict(type='ReadsValues')))
    monkeypatch.setattr('stmixer_mm.models.stmixer.check_parts', lambda *_, **__: None)
    unchecked = build_detector(detector(dict(type='ReadsValues')))
    for ours, theirs in zip(
        checked.state_dict().values(), unchecked.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_twins_have_no_memory_and_share_what_is_shared():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    tied[1].weight = tied[0].weight
    twin = meta_twin(tied)
    assert twin[1].weight is twin[0].weight and not twin.training
    assert {value.device.type for value in twin.state_dict().values()} == {'meta'}
    with torch.no_grad(), unnoticed():
        assert twin(torch.empty(5, 3, device='meta')).shape == (5, 3)
    assert tied.training and tied[0].weight.device.type == 'cpu'


@pytest.mark.parametrize(
    'weighing',
    [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm],
    ids=['hooks', 'parametrizations'],
)
def test_twins_of_computed_weights(weighing):
    with unnoticed():
        twin = meta_twin(weighing(nn.Conv3d(3, 4, 1)))
        assert twin(torch.empty(1, 3, 2, 4, 4, device='meta')).size(1) == 4


@pytest.mark.parametrize(
    ('settings', 'clip_len', 'sentence'),
    [
        (
            HALVES,
            8,
            r'^The backbone HalvesTime turns clips of 8 frames into maps of 4 frames but '
            r'the decoder STMixerDecoder has num_frames=2; set '
            r'model\.decoder\.num_frames=4, or clip_len=4 in the pipelines\.$',
        ),
        (
            HALVES,
            5,
            r'HalvesTime cannot take clips of 5 frames \(an even number of frames, '
            r'please\); set clip_len .* such as 2\.$',
        ),
        (
            dict(neck=[projection(), dict(type='ResampleTime', num_frames=2)]),
            None,
            None,
        ),
        (
            dict(
                backbone=dict(type='ResNet3dSlowFastPyramid', channel_ratio=8),
                neck=projection(in_channels=[288, 576, 1152, 2304]),
            ),
            10,
            r'ResNet3dSlowFastPyramid cannot take clips of 10 frames \(SlowFast got '
            r'clips of 10 frames, which is not a multiple of speed_ratio=4',
        ),
        (
            dict(neck=dict(type='FixedFrames')),
            4,
            r'FixedFrames cannot take the 4 maps .* \(made for 2 frames\)',
        ),
    ],
)
def test_clips_of_a_length(settings, clip_len, sentence):
    config = detector(**settings)
    model = MODELS.build(config)
    if sentence is None:
        model.check_parts(config, clip_len=7)
        return
    with pytest.raises(ValueError, match=sentence):
        model.check_parts(config, clip_len=clip_len)


def test_necks_are_checked_without_a_decoder():
    config = detector()
    model = MODELS.build(config)
    check_parts(model, config)
    config['neck']['in_channels'] = [4, 8]
    model.neck = MODELS.build(config['neck'])
    with pytest.raises(ValueError, match=r'in_channels=\[4, 8\] but the backbone'):
        check_parts(model, config)


def test_images_stand_for_clips_of_one_frame():
    config = detector(
        backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4),
        neck=dict(type='mmdet.FPN', in_channels=WIDTHS, out_channels=16, num_outs=4),
        num_frames=1,
    )
    config['type'] = 'StillImageSTMixer'
    MODELS.build(config)
    config['neck']['in_channels'] = [4, 8, 16, 16]
    with pytest.raises(
        ValueError, match=r'mmdet\.FPN has in_channels=\[4, 8, 16, 16\]'
    ):
        MODELS.build(config)


@pytest.mark.parametrize(
    'path', sorted(CONFIGS.glob('stmixer/*.py')), ids=lambda path: path.stem
)
def test_the_zoo_fits(path, monkeypatch):
    """All parts are seen, and each clip becomes maps of the decoder's frames."""
    linspace = torch.linspace  # the host's ViT asks for values
    monkeypatch.setattr(
        torch, 'linspace', lambda *a, **k: linspace(*a, **{**k, 'device': 'cpu'})
    )
    config = Config.fromfile(path)
    with torch.device('meta'):
        model = MODELS.build(config.model)
    (clip_len,) = clip_lengths(config, 'train')
    with unnoticed():
        start = time.perf_counter()
        trace = Probe(list_parts(model, config.model)).trace((clip_len, 224, 224))
        assert time.perf_counter() - start < 5
    assert set(frames_of(trace.feats[-1])) == {model.decoder.num_frames}
    model.check_parts(config.model, clip_len=clip_len)
    model.decoder.num_frames += 1
    with pytest.raises(ValueError, match=r'num_frames=\d+; set model\.decoder\.num_fr'):
        model.check_parts(config.model, clip_len=clip_len)


def test_lengths_of_nested_datasets():
    def dataset(clip_len):
        return dict(pipeline=[dict(type='A'), dict(type='B', clip_len=clip_len)])

    config = Config(
        dict(
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    dataset=dict(
                        type='ConcatDataset',
                        datasets=[dataset(4), dataset(8), dataset(4)],
                    ),
                )
            ),
            val_dataloader=dict(dataset=dict(pipeline=[dict(type='A')])),
            test_dataloader=None,
        )
    )
    assert clip_lengths(config, 'train') == [4, 8]
    assert clip_lengths(config, 'val') == clip_lengths(config, 'test') == []


@pytest.mark.parametrize('run', ['train', 'test'])
def test_a_run_with_clips_of_another_length_does_not_start(tmp_path, run):
    config = Config.fromfile(write_project(tmp_path))
    config.work_dir, config.launcher = str(tmp_path / 'work'), 'none'
    config.log_level = 'ERROR'
    loader = config[f'{run}_dataloader']
    loader.dataset.pipeline[1].clip_len = 6
    runner = build_runner(config)
    sentence = r'clips of 6 frames into maps of 6 frames .* or clip_len=2 in the pipe'
    with pytest.raises(ValueError, match=sentence):
        getattr(runner, run)()
    assert runner.iter == 0


@pytest.mark.parametrize(
    'parts, message',
    [
        (
            dict(head=dict(type='mmaction.I3DHead', num_classes=5, in_channels=16)),
            'head mmaction.I3DHead cannot take .* of the decoder STMixerDecoder: it '
            'lacks loss_denoising; set model.head to',
        ),
        (
            dict(head=dict(type='mmdet.FocalLoss')),
            'head mmdet.FocalLoss cannot take .*: it lacks loss, loss_denoising, predict',
        ),
        (
            dict(decoder=projection()),
            'decoder ChannelProjection3D is no QueryDecoder, which the head STMixerHead '
            'needs; set model.decoder to',
        ),
    ],
)
def test_a_part_of_another_kind_is_named(parts, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build({**detector(), **parts})
