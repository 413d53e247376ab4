"""Boxes as the decoder refines them: pure functions of tensors.

``boxes_xyzr`` (..., 4): centre x, y in pixels of the padded clip,
z = log2 sqrt(w * h), r = log2(h / w). ``bboxes`` (..., 4): pixel x1, y1, x2, y2.
Everything is float32 or better, under autocast too: z and r are exponents.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stmixer_mm.compat import stack_numbers
from stmixer_mm.models.precision import full_precision


def frame_scale(img_shape: tuple[int, int], like: Tensor) -> Tensor:
    """(w, h, w, h) of a frame (h, w): divided by it, pixel corners are in [0, 1]."""
    height, width = img_shape
    sides = width, height, width, height
    return stack_numbers(sides, dtype=like.dtype, device=like.device)


def frame_scales(img_shapes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """:func:`frame_scale` of each of B frames, in one copy to the device.

    They are (B, 1, …, 4), for boxes like these, (B, …, 4).
    """
    sides = [side for h, w in img_shapes for side in (w, h, w, h)]
    scales = stack_numbers(sides, dtype=like.dtype, device=like.device)
    return scales.view(-1, *[1] * (like.dim() - 2), 4)


def box_size(boxes_xyzr: Tensor) -> Tensor:
    """Width and height in pixels, (..., 2)."""
    return _size(full_precision(boxes_xyzr)[..., 2:])


def _size(z_r: Tensor) -> Tensor:
    z, r = z_r.unbind(-1)
    logs = torch.sub(z, r, alpha=0.5), torch.add(z, r, alpha=0.5)
    return torch.exp2(torch.stack(logs, dim=-1))


def xyzr_to_xyxy(boxes_xyzr: Tensor) -> Tensor:
    """Decode boxes to pixel corners."""
    centre, z_r = full_precision(boxes_xyzr).split(2, dim=-1)
    return span(centre, _size(z_r))


def span(centre: Tensor, size: Tensor) -> Tensor:
    """Pixel corners of boxes of this :func:`box_size`, (..., 2) both."""
    corners = [torch.add(centre, size, alpha=half) for half in (-0.5, 0.5)]
    return torch.cat(corners, dim=-1)


def xyxy_to_xyzr(bboxes: Tensor) -> Tensor:
    """Encode boxes of positive size; the inverse of :func:`xyzr_to_xyxy`."""
    top_left, bottom_right = full_precision(bboxes).split(2, dim=-1)
    log_w, log_h = (bottom_right - top_left).log2().unbind(-1)
    z_r = torch.stack(((log_w + log_h) / 2, log_h - log_w), dim=-1)
    return torch.cat(((top_left + bottom_right) / 2, z_r), dim=-1)


def refine_boxes(boxes_xyzr: Tensor, deltas: Tensor) -> Tensor:
    """Move boxes by deltas (dx, dy, dz, dr), both (..., 4) (paper, section 3.3).

    dx and dy are in units of the old 2^z.
    """
    xy, z_r = full_precision(boxes_xyzr).split(2, dim=-1)
    d_xy, d_z_r = full_precision(deltas).split(2, dim=-1)
    return torch.cat((xy + d_xy * torch.exp2(z_r[..., :1]), z_r + d_z_r), dim=-1)


def intersection_over_foreground(bboxes: Tensor) -> Tensor:
    """iof(i, j) = area(box_i and box_j) / area(box_i), (B, Q, Q), of boxes (B, Q, 4)."""
    top_left = torch.maximum(bboxes[:, :, None, :2], bboxes[:, None, :, :2])
    bottom_right = torch.minimum(bboxes[:, :, None, 2:], bboxes[:, None, :, 2:])
    overlap = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    area = (bboxes[..., 2:] - bboxes[..., :2]).prod(dim=-1)
    return overlap / area.unsqueeze(-1)


def position_wavelengths(embed_dims: int) -> Tensor:
    """For :func:`sine_position_code`, of x, y, z and r, (4, embed_dims / 8)."""
    num_feats = embed_dims // 4
    wavelengths = 10000 ** (torch.arange(0, num_feats, 2) / num_feats)
    return torch.tensor([1000.0, 1000.0, 1.0, 1.0])[:, None] * wavelengths


def sine_position_code(boxes_xyzr: Tensor, wavelengths: Tensor) -> Tensor:
    """Sine-cosine code of x, y, z and r, in that order, (..., embed_dims)."""
    angles = full_precision(boxes_xyzr).unsqueeze(-1) / wavelengths
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-3)
