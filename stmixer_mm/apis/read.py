"""Keyframes with persons from the predictions of a model."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from stmixer_mm.apis.tracking import Tracker
from stmixer_mm.apis.tubelets import ClipTubelets, join_tubelets
from stmixer_mm.datasets.clips import Clip
from stmixer_mm.datasets.frames import clip_indices
from stmixer_mm.datasets.transforms import SampleKeyframeClip
from stmixer_mm.evaluation.functional.tubelet_linking import Linking, TubeletLinker
from stmixer_mm.pictures import Mask, encode
from stmixer_mm.structures import (
    PRESENCE,
    Action,
    Keyframe,
    Person,
    TubeletStageOutput,
    top_actions,
)

Predictions = Iterable[tuple[Clip, InstanceData]]


def read_keyframes(
    model: nn.Module,
    predictions: Predictions,
    *,
    score_thr: float,
    tracker: Tracker | None,
    ahead_s: float,
) -> Iterator[Keyframe]:
    """The keyframe of each clip, whose persons have the model's ids or a tracker's."""
    for clip, instances in predictions:
        bboxes = _as_array(instances.bboxes) * (clip.size[::-1] * 2)
        person_scores, vectors, ids = (
            _as_array(instances[name]) if name in instances else None
            for name in ('person_scores', 'query_vectors', 'instances_id')
        )
        if ids is None and tracker is not None:
            ids = tracker.extend(clip.time_s, bboxes, person_scores, vectors)
        yield Keyframe(
            time_s=clip.time_s,
            frame_index=clip.frame_index,
            ahead_s=ahead_s or None,
            persons=_persons(
                bboxes,
                [
                    top_actions(row, model.classes, score_thr)
                    for row in _as_array(instances.scores)
                ],
                ids,
                person_scores,
                _encode(instances.masks, clip.size) if 'masks' in instances else None,
            ),
        )


def read_tubelets(
    model: nn.Module,
    predictions: Predictions,
    *,
    score_thr: float,
    sampler: SampleKeyframeClip,
) -> Iterator[Keyframe]:
    """All frames of the clips, whose persons have the ids of tubes."""
    times: dict[int, float] = {}  # of frames that are not final
    linker = TubeletLinker(Linking(), by_overlap=True)
    span = (sampler.clip_len - 1) * sampler.frame_interval + 1

    def tubelets() -> Iterator[ClipTubelets]:
        previous_index = 0
        for clip, instances in predictions:
            # A person may be missed during one clip, and between clips.
            linker.end_after = max(span, clip.frame_index - previous_index)
            previous_index = clip.frame_index
            times.update(zip(clip.frames, clip.times.tolist(), strict=True))
            yield ClipTubelets(
                frames=clip_indices(
                    clip.frame_index,
                    clip_len=sampler.clip_len,
                    frame_interval=sampler.frame_interval,
                    total_frames=clip.frames.stop,
                    place=sampler.place,
                ),
                bboxes=_as_array(instances.bboxes) * (clip.size[::-1] * 2),
                person_scores=_as_array(instances.person_scores),
                action_scores=_as_array(instances.scores),
                scores=_as_array(instances.tubelet_scores),
            )

    # If the user's threshold is lower, it applies to all frames.
    presence = min(PRESENCE, getattr(model.head, 'score_thr', PRESENCE))
    for persons in join_tubelets(tubelets(), linker, presence=presence):
        actions = [
            top_actions(row, model.classes, score_thr) for row in persons.action_scores
        ]
        yield Keyframe(
            time_s=times.pop(persons.frame),
            frame_index=persons.frame,
            persons=_persons(
                persons.bboxes, actions, persons.ids, persons.person_scores
            ),
        )


def _persons(
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
    return [encode(mask) for mask in _as_array(masks > 0.5)]


def _as_array(values: object) -> np.ndarray:
    return torch.as_tensor(values).cpu().numpy()


def finds_tubelets(model: nn.Module) -> bool:
    """True for a model that finds the boxes of persons in all frames of a clip."""
    head = getattr(model, 'head', None)
    return getattr(head, 'output_type', None) is TubeletStageOutput
