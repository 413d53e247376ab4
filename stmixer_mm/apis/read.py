"""Keyframes with persons from the predictions of a model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.tracking import Tracker
from stmixer_mm.datasets.clips import Clip
from stmixer_mm.pictures import Mask, encode
from stmixer_mm.registry import READERS
from stmixer_mm.structures import Action, Keyframe, Person, StageOutput, top_actions

Predictions = Iterable[tuple[Clip, InstanceData]]


class Reader(NamedTuple):
    """A reader of predictions as keyframes."""

    # Called with model, predictions and loader, score_thr and tracker.
    read: Callable[..., Iterator[Keyframe]]
    every_frame: bool  # of clips within the video; else their keyframe


def reader_of(model: nn.Module) -> Reader:
    head = getattr(model, 'head', None)
    return READERS[getattr(head, 'output_type', StageOutput)]


def read_keyframes(
    model: nn.Module,
    predictions: Predictions,
    loader: ClipLoader,
    *,
    score_thr: float,
    tracker: Tracker | None,
) -> Iterator[Keyframe]:
    """The keyframe of each clip, whose persons have a tracker's ids."""
    for clip, instances in predictions:
        bboxes = as_array(instances.bboxes) * (clip.size[::-1] * 2)
        person_scores, vectors = (
            as_array(instances[name]) if name in instances else None
            for name in ('person_scores', 'query_vectors')
        )
        ids = None
        if tracker is not None:
            ids = tracker.extend(clip.time_s, bboxes, person_scores, vectors)
        yield Keyframe(
            time_s=clip.time_s,
            frame_index=clip.frame_index,
            ahead_s=loader.ahead_s or None,
            persons=make_persons(
                bboxes,
                [
                    top_actions(row, model.classes, score_thr)
                    for row in as_array(instances.scores)
                ],
                ids,
                person_scores,
                _encode(instances.masks, clip.size) if 'masks' in instances else None,
            ),
        )


READERS[StageOutput] = Reader(read_keyframes, every_frame=False)


def make_persons(
    bboxes: np.ndarray,
    actions: Sequence[list[Action]],
    ids: np.ndarray | None,
    person_scores: np.ndarray | None,
    masks: Sequence[Mask] | None = None,
) -> list[Person]:
    no_values = [None] * len(bboxes)
    columns = zip(
        no_values if ids is None else ids.tolist(),
        bboxes.tolist(),
        no_values if person_scores is None else person_scores.tolist(),
        actions,
        no_values if masks is None else masks,
        strict=True,
    )
    return [
        Person(id=number, bbox=tuple(bbox), score=score, actions=done, mask=mask)
        for number, bbox, score, done, mask in columns
    ]


def _encode(masks: Tensor, size: tuple[int, int]) -> list[Mask]:
    """Masks (n, h, w) in [0, 1], at the size (h, w) of the video's frames."""
    if masks.shape[1:] != size:
        masks = F.interpolate(
            masks.float()[:, None], size, mode='bilinear', align_corners=False
        )[:, 0]
    return [encode(mask) for mask in as_array(masks > 0.5)]


def as_array(values: object) -> np.ndarray:
    return torch.as_tensor(values).cpu().numpy()
