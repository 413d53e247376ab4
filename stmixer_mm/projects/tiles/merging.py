"""Predictions of a frame from those in its tiles.

V views of a clip: the whole frame, then its tiles; n persons in all of them, in K frames
of the clip (1, or those of tubelets).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

MARGIN = 0.02  # of a tile's sides: a box this near to a border ends there
INSIDE = 0.7  # of a cut person's box that must be in the box of the whole person
SAME = 0.3  # IoU from which boxes of two views may be of one person


def merge(predictions: Sequence[InstanceData], views: np.ndarray) -> InstanceData:
    """The persons of a frame, the highest-scoring first.

    Args:
        predictions: Of the V views, with ``bboxes`` in [0, 1] of each, one of a person.
        views: (V, 4) pixel xyxy in the frame; the first is all of it.
    """
    if not any(map(len, predictions)):
        return predictions[0]
    views = torch.from_numpy(views).float()
    predictions = [instances.cpu() for instances in predictions]
    masks = [instances.pop('masks', None) for instances in predictions]
    persons = InstanceData.cat(predictions)
    counts = torch.tensor([len(instances) for instances in predictions])
    owners = torch.arange(len(views)).repeat_interleave(counts)
    bboxes = persons.bboxes.reshape(len(persons), -1, 4)
    corner, size = views[owners, None].split(2, dim=2)
    bboxes = bboxes * (size - corner).repeat(1, 1, 2) + corner.repeat(1, 1, 2)
    scores = persons.get('tubelet_scores', persons.get('person_scores'))
    if scores is None:
        scores = persons.scores[:, 1:].amax(dim=1)
    is_left = _is_whole_elsewhere(bboxes, owners, views)
    is_left |= (owners == 0) & _fits_a_tile(bboxes, views)
    # Ties of scores must not depend on the order of the tiles.
    keys = torch.column_stack([bboxes.flatten(1), -scores, is_left])
    order = np.lexsort(keys.T.numpy())
    middle = bboxes[order, bboxes.shape[1] // 2]
    best = _best_of_each(middle, owners[order], views)
    rows = torch.from_numpy(order)[best]
    rows = rows[~is_left[rows]]
    persons.bboxes = (bboxes / views[0, 2:].repeat(2)).reshape(persons.bboxes.shape)
    persons = persons[rows]
    if masks[0] is not None:
        places = rows - (counts.cumsum(0) - counts)[owners[rows]]
        persons.masks = _frame_masks(masks, owners[rows], places, views)
    return persons


def _is_whole_elsewhere(bboxes: Tensor, owners: Tensor, views: Tensor) -> Tensor:
    """(n,) whether a person, cut by the border of its tile, is whole in another view.

    Args:
        bboxes: (n, K, 4) in the frame.
        owners: (n,) the view of each.
        views: (V, 4).
    """
    gaps = (bboxes - views[owners, None]).abs()  # to the borders of the tile
    sides = (views[:, 2:] - views[:, :2]).repeat(1, 2)
    is_inner = views != views[0]
    is_cut = ((gaps < MARGIN * sides[owners, None]) & is_inner[owners, None]).any(2)
    is_cut = is_cut.any(dim=1)
    frame_bboxes = bboxes.transpose(0, 1)
    inside = bbox_overlaps(frame_bboxes, frame_bboxes, mode='iof')
    inside = inside.mean(dim=0)  # (n, n), row in column
    is_part = (inside >= INSIDE) & (owners[:, None] != owners) & ~is_cut
    return is_cut & is_part.any(dim=1)


def _fits_a_tile(bboxes: Tensor, views: Tensor) -> Tensor:
    """(n,) whether a person is so small that some tile, larger, shows all of it.

    Args:
        bboxes: (n, K, 4) in the frame.
        views: (V, 4).
    """
    fits = torch.ones(len(bboxes), dtype=torch.bool)
    for axis in range(2):
        starts = views[1:, axis].unique()
        if len(starts) > 1:
            side = views[1, axis + 2] - views[1, axis]
            room = (1 - 2 * MARGIN) * side - starts.diff().max()
            low, high = bboxes[..., axis], bboxes[..., axis + 2]
            fits &= high.amax(dim=1) - low.amin(dim=1) < room
    return fits


def _best_of_each(bboxes: Tensor, owners: Tensor, views: Tensor) -> list[int]:
    """Indices of those of n boxes that are the first of their persons.

    A view has one box of a person at most: the one that is most like what it can see
    of the first. So persons who cross stay two wherever a view has both.
    """
    corners, ends = views[owners].split(2, dim=1)
    is_of = owners == torch.arange(len(views))[:, None]  # (V, n)
    is_free = torch.ones(len(bboxes), dtype=torch.bool)
    firsts = []
    for first, bbox in enumerate(bboxes):
        if is_free[first]:
            firsts.append(first)
            parts = torch.cat(
                [bbox[:2].maximum(corners), bbox[2:].minimum(ends)], dim=1
            )
            ious = bbox_overlaps(parts, bboxes, is_aligned=True)
            max_ious, places = (is_of * is_free * ious).max(dim=1)  # in each view
            is_free[places[max_ious > SAME]] = False
    return firsts


def _frame_masks(
    masks: Sequence[Tensor], owners: Tensor, places: Tensor, views: Tensor
) -> Tensor:
    """Masks of k persons, (k, h, w) of the frame, from those of their views."""
    width, height = views[0, 2:].int().tolist()
    framed = torch.zeros(len(owners), height, width)
    for mask, owner, place in zip(
        framed, owners.tolist(), places.tolist(), strict=True
    ):
        x1, y1, x2, y2 = views[owner].int().tolist()
        part = masks[owner][place].float()[None, None]
        if part.shape[2:] != (y2 - y1, x2 - x1):
            part = F.interpolate(part, (y2 - y1, x2 - x1), mode='bilinear')
        mask[y1:y2, x1:x2] = part[0, 0]
    return framed
