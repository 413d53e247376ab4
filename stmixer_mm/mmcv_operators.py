"""Plain PyTorch in place of mmcv's compiled operators, where there are none.

``mmcv-lite`` has the Python of all operators but not ``mmcv._ext``, one compiled for
another torch does not load, and one compiled without CUDA has none for a GPU. The hosts
import every operator; this package and the hosts' RoI heads call two, nms and RoIAlign.
Those are here with the signatures and numbers of mmcv 2.1.0 (nms equal, RoIAlign up to
rounding); any other raises ``UserError`` when it is called.
"""

import importlib
import logging
import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

from stmixer_mm.errors import UserError

NAME = 'mmcv._ext'


def nms(boxes, scores, iou_threshold, offset):
    """Indices of the boxes that greedy suppression keeps, by falling score."""
    order = scores.sort(descending=True).indices
    x1, y1, x2, y2 = boxes[order].cpu().float().unbind(1)
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    is_kept = torch.ones(len(order), dtype=torch.bool)
    for i in range(len(order)):
        if is_kept[i]:
            later = slice(i + 1, None)
            width = (
                x2[i].minimum(x2[later]) - x1[i].maximum(x1[later]) + offset
            ).clamp(0)
            height = (
                y2[i].minimum(y2[later]) - y1[i].maximum(y1[later]) + offset
            ).clamp(0)
            overlap = width * height
            iou = overlap / (areas[i] + areas[later] - overlap)
            is_kept[later] &= ~(iou > iou_threshold)
    return order[is_kept.to(order.device)]


def roi_align_forward(feats, rois, output, argmax_y, argmax_x, **options):
    """Mean samples of each RoI (n, 5) in maps (B, C, H, W), into output (n, C, h, w)."""
    for image, roi, bins in zip(rois[:, 0].long(), rois[:, 1:], output, strict=True):
        across_y, across_x = _roi_weights(roi, feats.shape[-2:], **options)
        bins.copy_(across_y @ feats[image].float() @ across_x.T)


def roi_align_backward(grad, rois, argmax_y, argmax_x, grad_feats, **options):
    """Gradient of the maps, added into grad_feats (B, C, H, W)."""
    for image, roi, bins in zip(rois[:, 0].long(), rois[:, 1:], grad, strict=True):
        across_y, across_x = _roi_weights(roi, grad_feats.shape[-2:], **options)
        grad_feats[image] += (across_y.T @ bins.float() @ across_x).to(grad_feats)


def _roi_weights(
    roi,
    size,
    *,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    **options,
):
    """Weights (h, H) and (w, W) of rows and columns in the bins of one RoI."""
    if not options['pool_mode']:
        _raise_missing('RoIAlign with pool_mode="max"')
    x1, y1, x2, y2 = (roi.float() * spatial_scale - options['aligned'] / 2).tolist()
    smallest = 0.0 if options['aligned'] else 1.0
    spans = (y1, max(y2 - y1, smallest)), (x1, max(x2 - x1, smallest))
    return [
        _bin_weights(
            *span, bins, sampling_ratio or math.ceil(span[1] / bins), length, roi.device
        )
        for span, bins, length in zip(
            spans, (aligned_height, aligned_width), size, strict=True
        )
    ]


def _bin_weights(start, extent, bins, samples, length, device):
    """Weights (bins, length) of pixels in the mean of each bin's linear samples."""
    steps = torch.arange(bins * samples, device=device) + 0.5
    at = start + steps * (extent / max(bins * samples, 1))
    inside = (at >= -1) & (at <= length)
    pixels = torch.arange(length, device=device)
    weights = 1 - (at.clamp(0, length - 1)[:, None] - pixels).abs()
    weights = weights.clamp(min=0) * inside[:, None]
    return weights.view(bins, samples, length).sum(1) / max(samples, 1)


def get_compiler_version():
    return 'none (nms and RoIAlign are plain PyTorch, others are missing)'


def get_compiling_cuda_version():
    return 'not available'


def _raise_missing(operator):
    raise UserError(
        f'{operator} is an operator of compiled mmcv, which is not installed: install '
        'mmcv==2.1.0 in place of mmcv-lite (make setup MMCV=full).'
    )


def _missing(operator):
    if operator.startswith('__'):
        raise AttributeError(operator)
    return lambda *args, **kwargs: _raise_missing(operator)


def _off_cpus(compiled, plain):
    return lambda tensor, *args, **options: (
        compiled if tensor.device.type == 'cpu' else plain
    )(tensor, *args, **options)


def stand_in() -> None:
    """Put this file's operators at ``mmcv._ext`` where it lacks compiled ones."""
    try:
        module = importlib.import_module(NAME)
        if module.get_compiling_cuda_version() == get_compiling_cuda_version():
            for plain in OPERATORS[:3]:
                compiled = getattr(module, plain.__name__)
                setattr(module, plain.__name__, _off_cpus(compiled, plain))
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            logging.getLogger('stmixer_mm').warning(
                'The compiled operators of mmcv do not load (%s): nms and RoIAlign run '
                'in plain PyTorch.',
                error,
            )
        module = ModuleType(NAME, __doc__)
        module.__spec__ = ModuleSpec(NAME, None)
        module.__getattr__ = _missing
        for operator in OPERATORS:
            setattr(module, operator.__name__, operator)
        sys.modules[NAME] = module


OPERATORS = (
    *(nms, roi_align_forward, roi_align_backward),
    *(get_compiler_version, get_compiling_cuda_version),
)
