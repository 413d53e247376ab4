"""Detectors made faster for inference, with the same numbers but for rounding."""

from collections import Counter
from functools import partial

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks import wrappers
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from stmixer_mm.compat import multiplies_bfloat16, packs_linears
from stmixer_mm.models.decoder.mixing.adaptive_mixing import AdaptiveMixing

# These and no subclasses, which may compute with other weights than they hold.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, wrappers.Conv2d, wrappers.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def speed_up(model: nn.Module) -> nn.Module:
    """The same detector, changed in place: for inference alone from now on.

    Batch norms are folded into convolutions. Where the device multiplies bfloat16
    itself, the model runs in it, by autocast; on a CPU 3-D convolutions only without
    gradients, as under ``torch.inference_mode()``. To train, build the model anew.

    Args:
        model: In evaluation mode, on its device.
    """
    for step in STEPS.values():
        step(model)
    return model


def fold_batch_norms(model: nn.Module) -> None:
    """Let convolutions do the work of the batch norms behind them.

    mmcv's ``ConvModule`` says which belong together (its ``fuse_conv_bn`` takes a norm
    to be of the convolution registered before it, and knows only 2-D ones).
    """
    owners = Counter(
        id(child) for owner in model.modules() for child in owner._modules.values()
    )
    for module in model.modules():
        if isinstance(module, ConvModule) and _is_foldable(module):
            conv, norm = module.conv, module.norm
            if owners[id(conv)] == owners[id(norm)] == 1:
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight,
                    conv.bias,
                    norm.running_mean,
                    norm.running_var,
                    norm.eps,
                    norm.weight,
                    norm.bias,
                )
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
    """Lay out the weights of convolutions so; feature maps follow them."""
    for module in model.modules():
        if type(module) in _CONVOLUTIONS and module.weight.dim() in _LAYOUTS:
            layout = _LAYOUTS[module.weight.dim()]
            module.weight.data = module.weight.data.contiguous(memory_format=layout)


def run_in_bfloat16(model: nn.Module) -> None:
    """Autocast, with channels last: in another layout oneDNN is hardly faster."""
    device_type = _device_of(model).type
    if not multiplies_bfloat16(device_type):
        return
    use_channels_last(model)
    context = torch.autocast(device_type, torch.bfloat16)
    model.register_forward_pre_hook(partial(_enter, context))
    model.register_forward_hook(partial(_leave, context), always_call=True)


def _enter(context: torch.autocast, *_: object) -> None:
    context.__enter__()


def _leave(context: torch.autocast, *_: object) -> None:
    context.__exit__(None, None, None)


def pack_mixing(model: nn.Module) -> None:
    """Keep the weights of adaptive mixing as products take them, not as trained.

    They are most of the released models' parameters. Else each call would cast them to
    bfloat16 and, on a CPU, bring them into another layout.
    """
    device_type = _device_of(model).type
    for module in model.modules():
        if isinstance(module, AdaptiveMixing) and not module.packed:
            if multiplies_bfloat16(device_type):
                for linear in (module.weight_generator, module.out_proj):
                    linear.weight.data = linear.weight.data.bfloat16()
            if device_type == 'cpu' and packs_linears():
                module.pack()


def make_convolutions_lean(model: nn.Module) -> None:
    """Less time and RAM in training; the numbers differ by rounding.

    Batch norms in evaluation mode (``norm_eval``) are folded at each call, so that
    their inputs are not kept (mmcv's ``efficient_conv_bn_eval``; mmengine's setting of
    that name cannot trace mmcv's convolutions). Layouts are channels last.
    """
    for module in model.modules():
        if isinstance(module, ConvModule) and type(module.norm) in _BATCH_NORMS:
            module.turn_on_efficient_conv_bn_eval()
    use_channels_last(model)


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


# What is done, in this order.
STEPS = {
    'batch norms folded': fold_batch_norms,
    'bfloat16, channels last': run_in_bfloat16,
    'weights of the mixing packed': pack_mixing,
}
