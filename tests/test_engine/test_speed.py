"""Detectors that were sped up give the same results up to rounding."""

from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from exchanges import exchanged
from kept_bytes import bytes_kept_for_backward
from mmcv.cnn import ConvModule
from tiny import batch, build_detector, data_sample
from torch import nn
from torch.testing import assert_close

from stmixer_mm.apis import init_detector
from stmixer_mm.compat import autocast_dtype
from stmixer_mm.engine import speed
from stmixer_mm.engine.hooks import LeanConvolutionsHook
from stmixer_mm.engine.speed import fold_batch_norms, speed_up

BATCH_NORM = nn.modules.batchnorm._BatchNorm


@pytest.fixture(params=[False, True], ids=['float32', 'bfloat16'])
def in_bfloat16(request, monkeypatch):
    """On a CPU that multiplies bfloat16, and on one that does not."""
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: request.param)
    if request.param and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        # This one can pretend to multiply it, but not to pack it.
        monkeypatch.setattr(speed, 'packs_linears', lambda: False)
    return request.param


def trained(model):
    """In evaluation mode, with batch norms that do something."""
    for norm in norms_of(model):
        nn.init.normal_(norm.running_mean, std=0.2)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
    return model.eval()


def norms_of(model):
    return [module for module in model.modules() if isinstance(module, BATCH_NORM)]


@torch.inference_mode()
def last_stage(model, clips):
    samples = [data_sample(img_shape=clips.shape[-2:])] * len(clips)
    data = model.data_preprocessor(dict(inputs=list(clips), data_samples=samples))
    logits, action_logits, bboxes = model(**data, mode='tensor')[-1]
    return logits.softmax(-1).float(), action_logits.sigmoid().float(), bboxes


@pytest.mark.parametrize('name', ['framewise-fpn-batchnorm-leaky', 'csn'])
def test_numbers_differ_by_rounding_alone(name, in_bfloat16):
    model = init_detector(exchanged(name), None)
    (frames,) = (s.clip_len for s in model.cfg.train_pipeline if 'clip_len' in s)
    for stage in model.decoder.stages:  # which starts with boxes that stay
        nn.init.normal_(stage.box_branch[-1].weight, std=0.01)
    trained(model)
    clips = torch.randint(0, 256, (2, 3, frames, 64, 96), dtype=torch.uint8)
    expected = last_stage(model, clips)
    speed_up(model)
    assert not norms_of(model)
    mixing = [part for part in model.modules() if hasattr(part, 'pack')]
    assert {bool(part.packed) for part in mixing} == {speed.packs_linears()}
    scores_atol, bboxes_atol = (0.03, 1.0) if in_bfloat16 else (1e-4, 1e-2)
    *scores, bboxes = last_stage(model, clips)
    assert_close(scores, [*expected[:2]], rtol=0, atol=scores_atol)
    assert_close(bboxes, expected[2], rtol=0, atol=bboxes_atol)


def test_bfloat16_where_the_processor_has_it(in_bfloat16):
    model, dtypes = speed_up(trained(build_detector())), []
    model.neck.projections[0].register_forward_hook(
        lambda module, args, output: dtypes.append(output.dtype)
    )
    with torch.inference_mode():
        (sample,) = model.test_step(batch(data_sample()))
    assert dtypes == [torch.bfloat16 if in_bfloat16 else torch.float32]
    assert sample.pred_instances.scores.dtype == torch.float32
    # Autocast ends with the call, and with its error.
    with pytest.raises(AttributeError), torch.inference_mode():
        model(None, None, mode='tensor')
    assert autocast_dtype('cpu') is None


def test_lean_convolutions_learn_the_same():
    volumes = dict(conv_cfg=dict(type='Conv3d'), norm_cfg=dict(type='BN3d'))
    relu6 = dict(act_cfg=dict(type='ReLU6'))
    layers = nn.Sequential(conv_module(**volumes, **relu6), conv_module(**volumes))
    lean = deepcopy(trained(layers))
    LeanConvolutionsHook().before_train(SimpleNamespace(model=lean))
    assert lean[0].conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
    inputs = torch.randn(2, 3, 2, 6, 7)
    num_bytes = []
    for model in layers, lean:
        run = partial(model, inputs)
        num_bytes.append(bytes_kept_for_backward(run, [*model.parameters(), inputs]))
        run().square().sum().backward()
    assert num_bytes[1] < num_bytes[0]
    for ours, expected in zip(lean.parameters(), layers.parameters(), strict=True):
        assert_close(ours.grad, expected.grad, rtol=1e-4, atol=1e-4)


def conv_module(**settings):
    return ConvModule(3, 3, 3, padding=1, **dict(norm_cfg=dict(type='BN')) | settings)


def sharing():
    """Two norms behind one convolution, as in heads of mmdet."""
    first, second = conv_module(), conv_module()
    second.conv = first.conv
    return nn.Sequential(first, second)


UNFOLDABLE = dict(
    shared_convolution=sharing,
    norm_first=lambda: conv_module(order=('norm', 'conv', 'act')),
    spectral_norm=lambda: conv_module(with_spectral_norm=True),
    weight_standardisation=lambda: conv_module(conv_cfg=dict(type='ConvWS')),
    group_norm=lambda: conv_module(norm_cfg=dict(type='GN', num_groups=3)),
)


@pytest.mark.parametrize('name', UNFOLDABLE)
def test_what_cannot_be_folded_stays(name):
    module = trained(UNFOLDABLE[name]())
    image = torch.randn(2, 3, 8, 8)
    expected, layers = module(image), [type(layer) for layer in module.modules()]
    fold_batch_norms(module)
    assert [type(layer) for layer in module.modules()] == layers
    assert torch.equal(module(image), expected)


@pytest.mark.parametrize(
    'settings', [dict(bias=True), dict(groups=3), dict(efficient_conv_bn_eval=True)]
)
@pytest.mark.filterwarnings('ignore:Unnecessary conv bias')
def test_folded(settings):
    module = trained(conv_module(**settings))
    image = torch.randn(2, 3, 8, 8)
    expected = module(image)
    fold_batch_norms(module.train())
    assert norms_of(module)  # which is training
    fold_batch_norms(module.eval())
    assert not norms_of(module)
    assert_close(module(image), expected, atol=1e-5, rtol=1e-5)
