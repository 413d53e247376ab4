"""Faster detectors for inference and training, identical up to rounding."""

import ctypes
from collections import Counter
from contextlib import suppress
from functools import partial

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks import wrappers
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stmixer_mm.compat import multiplies_bfloat16
from stmixer_mm.models.decoder.mixing.adaptive_mixing import AdaptiveMixing
from stmixer_mm.models.precision import packs_linears

# No subclasses: they may compute with other weights than those stored.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, wrappers.Conv2d, wrappers.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_NEED_INPUT = (nn.Hardtanh, nn.SiLU, nn.Hardswish)
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def speed_up(model: nn.Module) -> nn.Module:
    """Change a detector in place, for inference only.

    Batch norms are folded into convolutions and the weights of adaptive mixing packed.
    Where the device multiplies bfloat16, the model runs in it, by autocast; on a CPU
    3-D convolutions do so only without gradients, as under ``torch.inference_mode()``.

    Args:
        model: In evaluation mode, on its device.
    """
    device_type = next(model.parameters()).device.type
    in_bfloat16 = multiplies_bfloat16(device_type)
    fold_batch_norms(model)
    if in_bfloat16:
        use_channels_last(model)  # in another layout oneDNN is hardly faster
        context = torch.autocast(device_type, torch.bfloat16)
        model.register_forward_pre_hook(partial(_enter, context))
        model.register_forward_hook(partial(_leave, context), always_call=True)
    pack_mixing(model, in_bfloat16=in_bfloat16, on_cpu=device_type == 'cpu')
    return model


def fold_batch_norms(model: nn.Module) -> None:
    """Fold batch norms into the convolutions of the same ``ConvModule``.

    mmcv's ``fuse_conv_bn`` pairs a norm with the convolution registered before it,
    which may be another one's, and knows only 2-D convolutions.
    """
    owners = Counter(
        id(child) for owner in model.modules() for child in owner._modules.values()
    )
    for module in model.modules():
        if (
            isinstance(module, ConvModule)
            and _is_foldable(module)
            and owners[id(module.conv)] == owners[id(module.norm)] == 1
        ):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            setattr(module, module.norm_name, nn.Identity())
            # Of efficient_conv_bn_eval=True, which folds at each call.
            module.efficient_conv_bn_eval_forward = None


def _is_foldable(module: ConvModule) -> bool:
    conv, norm = module.conv, module.norm
    return (
        type(conv) in _CONVOLUTIONS
        and type(norm) in _BATCH_NORMS
        and norm.running_mean is not None
        and not (norm.training or module.with_spectral_norm)
        and module.order.index('norm') == module.order.index('conv') + 1
    )


def use_channels_last(model: nn.Module) -> None:
    """Lay out the weights of convolutions with channels last; feature maps follow."""
    for module in model.modules():
        if type(module) in _CONVOLUTIONS and module.weight.dim() in _LAYOUTS:
            layout = _LAYOUTS[module.weight.dim()]
            module.weight.data = module.weight.data.contiguous(memory_format=layout)


def _enter(context: torch.autocast, *_: object) -> None:
    context.__enter__()


def _leave(context: torch.autocast, *_: object) -> None:
    context.__exit__(None, None, None)


def pack_mixing(model: nn.Module, *, in_bfloat16: bool, on_cpu: bool) -> None:
    """Keep the weights of adaptive mixing in the type and layout of its products.

    They are most of the released models' parameters. Otherwise each call would cast
    them, and on a CPU change their layout.
    """
    for module in model.modules():
        if isinstance(module, AdaptiveMixing) and not module.packed:
            for linear in (module.weight_generator, module.out_proj):
                if in_bfloat16:
                    linear.weight.data = linear.weight.data.bfloat16()
            if on_cpu and packs_linears():
                module.pack()


def make_convolutions_lean(model: nn.Module) -> None:
    """Train convolutions in less time and RAM.

    Batch norms in evaluation mode (``norm_eval``) are folded at each call, so that
    their inputs are not kept (mmcv's ``efficient_conv_bn_eval``; mmengine's setting of
    that name cannot trace mmcv's convolutions). Activations whose gradient needs their
    input are not in place, as autograd would copy it. Layouts are channels last.
    """
    for module in model.modules():
        if isinstance(module, _NEED_INPUT):
            module.inplace = False
        if isinstance(module, ConvModule) and type(module.norm) in _BATCH_NORMS:
            module.turn_on_efficient_conv_bn_eval()
    use_channels_last(model)


def keep_freed_memory() -> None:
    """Have glibc keep what a process frees, for its next tensors.

    By default large tensors get new pages from the system each time, which on a CPU may
    take longer than what is computed in them. See mallopt(3); other C libraries are left
    as they are.
    """
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    with suppress(AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(trim_threshold, -1)
        set_option(mmap_max, 0)
