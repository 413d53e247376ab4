"""Predictions of samples, as arrays of a size that can be collected."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.matching import Boxes, take


class Instances(NamedTuple):
    """Predictions of a sample: n boxes of a keyframe, or n tubelets of a clip."""

    bboxes: np.ndarray  # (n, 4), of tubelets (n, K, 4)
    scores: np.ndarray  # (n, classes), or in each frame (n, K, classes)
    person_scores: np.ndarray | None  # of tubelets (n, K)

    def at(self, entry: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) in a frame of the clip, and scores (n, classes) there.

        These are those of the tubelets times the person scores.
        """
        if self.person_scores is None:
            return self.bboxes, self.scores
        person_scores = self.person_scores[:, entry, None]
        scores = self.scores if self.scores.ndim == 2 else self.scores[:, entry]
        return self.bboxes[:, entry], scores * person_scores


class Actions(NamedTuple):
    """N actions of many boxes, box by box."""

    box: np.ndarray  # (N,) int32, which of all boxes
    columns: np.ndarray  # (N,) unsigned, of their scores
    scores: np.ndarray  # (N,) float


class Detections(NamedTuple):
    """All predictions: n boxes, keyframe by keyframe, or n tubelets, clip by clip."""

    keyframe_key: Callable[[int], str]  # of the number of a keyframe
    frames: np.ndarray  # (n,) int, numbers of keyframes; of tubelets (n, K)
    bboxes: np.ndarray  # (n, 4) float; of tubelets (n, K, 4), NaN where there is none
    person_scores: np.ndarray  # (n,) float
    actions: Actions

    def persons(self) -> Boxes:
        """All boxes, whatever their actions."""
        return Boxes(self.frames, self.bboxes, self.person_scores)

    def of(self, column: int) -> Boxes:
        """Boxes of one class, in their order."""
        # Sorting all of them by class would take as long, and three times the RAM.
        index = np.flatnonzero(self.actions.columns == column)
        box = self.actions.box[index]
        return Boxes(self.frames[box], self.bboxes[box], self.actions.scores[index])


def take_boxes(detections: Detections, kept: np.ndarray) -> Detections:
    """The boxes of a mask (n,), and their actions."""
    if kept.all():
        return detections
    actions = take(detections.actions, kept[detections.actions.box])
    number = np.cumsum(kept, dtype=np.int32) - 1
    return detections._replace(
        frames=detections.frames[kept],
        bboxes=detections.bboxes[kept],
        person_scores=detections.person_scores[kept],
        actions=actions._replace(box=number[actions.box]),
    )


def to_numpy(values: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    if not hasattr(values, 'detach'):
        return values
    if values.element_size() < 4:  # numpy has no bfloat16
        values = values.float()
    return values.detach().cpu().numpy()


def read_instances(sample: Mapping, num_classes: int) -> Instances:
    """The ``pred_instances`` of a sample, in 32 bits (models) or 64 (files).

    Raises:
        UserError: they have other shapes, or are NaN or infinite.
    """
    given = sample['pred_instances']
    is_clip = np.ndim(given['bboxes']) == 3
    names = ['bboxes', 'scores', *['person_scores'] * is_clip]
    arrays = [np.asarray(to_numpy(given[name])) for name in names]
    arrays = [one if one.dtype == float else one.astype(np.float32) for one in arrays]
    *size, four = arrays[0].shape
    shapes = {(size[0], num_classes), (*size, num_classes)}, {tuple(size)}
    fit = [one.shape in fits for one, fits in zip(arrays[1:], shapes, strict=False)]
    if four != 4 or not all(fit):
        found = ', '.join(
            f'{name} {one.shape}' for name, one in zip(names, arrays, strict=True)
        )
        raise UserError(
            f'predictions of {sample["video_id"]} have {found}, which is not bboxes '
            f'(n, 4) and scores (n, {num_classes}); give model and metric the same '
            'classes (num_classes).'
        )
    if not all(np.isfinite(one).all() for one in arrays):
        raise UserError(
            f'predictions of {sample["video_id"]} are not finite numbers; the model has '
            'diverged, so train it again with a lower learning rate.'
        )
    return Instances(*arrays, *[None] * (not is_clip))


def is_sound_box(x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
    """Whether it is upright and near [0, 1]; of numbers or arrays (n,) of them."""
    # Detectors' boxes may leave the frame, but by no more than its size.
    return (x1 >= -1) & (x1 <= x2) & (x2 <= 2) & (y1 >= -1) & (y1 <= y2) & (y2 <= 2)


def select_actions(
    bboxes: np.ndarray, scores: np.ndarray, score_thr: float, counted: np.ndarray
) -> dict[str, np.ndarray]:
    """Boxes and their actions with a score above score_thr.

    Args:
        bboxes: (n, ...).
        scores: (n, num_classes).
        score_thr: Scores up to it do not count.
        counted: (num_classes,) bool, columns of the scores that count; 0 is the dummy.

    Returns:
        ``bboxes`` (n, ...); ``person_scores`` (n,), the best of each box; ``num_actions``
        (n,), and of these N actions, box by box, ``columns`` (N,) and ``scores`` (N,).
        Integers are as small as the number of classes allows.
    """
    is_action = (scores > score_thr) & counted
    small = np.min_scalar_type(len(counted))
    return {
        'bboxes': bboxes,
        'person_scores': scores[:, 1:].max(axis=1, initial=0),
        'num_actions': is_action.sum(axis=1).astype(small),
        'columns': np.nonzero(is_action)[1].astype(small),
        'scores': scores[is_action],
    }


_NOTHING = select_actions(
    np.zeros((0, 4)), np.zeros((0, 1)), 0, np.zeros(1, dtype=bool)
)


def join_detections(
    frames: Sequence[int] | Sequence[np.ndarray],
    results: Sequence[dict],
    keyframe_key: Callable[[int], str],
) -> Detections:
    """The results of ``select_actions`` in one.

    They are used up: there is no room for the scores of millions of boxes twice.

    Args:
        frames: The number of the keyframe of each, or numbers (K,) of a clip's frames.
        results: As many.
        keyframe_key: As in ``Detections``.
    """
    num_boxes = [len(result['bboxes']) for result in results]
    joined = {
        name: np.concatenate([result.pop(name) for result in results] or [nothing])
        for name, nothing in _NOTHING.items()
    }
    num_actions = joined['num_actions']
    box = np.repeat(np.arange(len(num_actions), dtype=np.int32), num_actions)
    return Detections(
        keyframe_key,
        np.repeat(np.array(frames, dtype=int), np.array(num_boxes, dtype=int), axis=0),
        joined['bboxes'],
        joined['person_scores'],
        Actions(box, joined['columns'], joined['scores']),
    )
