"""Predictions of samples, as arrays of a size that can be collected."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.matching import Boxes


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


class Detections(NamedTuple):
    """All predictions: n boxes, keyframe by keyframe, or n tubelets, clip by clip.

    They do N actions, box by box.
    """

    keyframe_key: Callable[[int], str]  # of the number of a keyframe
    frames: np.ndarray  # (n,) int, numbers of keyframes; of tubelets (n, K)
    bboxes: np.ndarray  # (n, 4) float; of tubelets (n, K, 4), NaN where there is none
    owners: np.ndarray  # (N,) int32, the boxes of the actions
    columns: np.ndarray  # (N,) unsigned, of the actions' scores
    scores: np.ndarray  # (N,) float

    def of(self, column: int) -> Boxes:
        """Boxes of one class, in their order."""
        # Sorting all of them by class would take as long, and three times the RAM.
        index = np.flatnonzero(self.columns == column)
        box = self.owners[index]
        return Boxes(self.frames[box], self.bboxes[box], self.scores[index])


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
    instances = sample['pred_instances']
    is_clip = np.ndim(instances['bboxes']) == 3
    names = ['bboxes', 'scores', *['person_scores'] * is_clip]
    arrays = []
    for name in names:
        array = np.asarray(to_numpy(instances[name]))
        arrays.append(array if array.dtype == float else array.astype(np.float32))
    *size, num_coordinates = arrays[0].shape
    shapes = {(size[0], num_classes), (*size, num_classes)}, {tuple(size)}
    pairs = zip(arrays[1:], shapes, strict=False)
    if num_coordinates != 4 or not all(array.shape in valid for array, valid in pairs):
        text = ', '.join(
            f'{name} {array.shape}' for name, array in zip(names, arrays, strict=True)
        )
        raise UserError(
            f'predictions of {sample["video_id"]} have {text}, which is not bboxes '
            f'(n, 4) and scores (n, {num_classes}); give model and metric the same '
            'classes (num_classes).'
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(
            f'predictions of {sample["video_id"]} are not finite numbers; the model has '
            'diverged, so train it again with a lower learning rate.'
        )
    return Instances(*arrays, *[None] * (not is_clip))


def count_classes(
    bboxes: np.ndarray, scores: np.ndarray, classes: str
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, ...) and scores (n, num_classes) of the classes that they count for.

    Args:
        bboxes: (m, ...).
        scores: (m, num_classes).
        classes: As in ``Protocol``. Each box is repeated for ``'mislabelled'``.
    """
    if classes == 'all' or not len(bboxes):
        return bboxes, scores
    owners, best = np.arange(len(bboxes)), 1 + scores[:, 1:].argmax(axis=1)
    values = scores[owners, best]
    if classes == 'mislabelled':
        owners, values = owners.repeat(scores.shape[1] - 1), scores[:, 1:].ravel()
    counted_scores = np.full((len(owners), scores.shape[1]), -np.inf)
    counted_scores[np.arange(len(owners)), best[owners]] = values
    return bboxes[owners], counted_scores


def select_actions(
    bboxes: np.ndarray, scores: np.ndarray, counted: np.ndarray
) -> dict[str, np.ndarray]:
    """Boxes and their actions, in integers as small as the number of classes allows.

    Args:
        bboxes: (n, ...).
        scores: (n, num_classes).
        counted: (n, num_classes) bool, True for detections.

    Returns:
        ``bboxes`` (n, ...); ``num_actions`` (n,); and of these N actions, box by box,
        ``columns`` (N,) and ``scores`` (N,).
    """
    dtype = np.min_scalar_type(counted.shape[1])
    return {
        'bboxes': bboxes,
        'num_actions': counted.sum(axis=1).astype(dtype),
        'columns': np.nonzero(counted)[1].astype(dtype),
        'scores': scores[counted],
    }


_EMPTY = select_actions(np.zeros((0, 4)), np.zeros((0, 1)), np.zeros((0, 1), bool))


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
    bboxes, num_actions, columns, scores = (
        np.concatenate([result.pop(name) for result in results] or [empty])
        for name, empty in _EMPTY.items()
    )
    frames = np.repeat(np.array(frames, int), np.array(num_boxes, int), axis=0)
    owners = np.repeat(np.arange(len(bboxes), dtype=np.int32), num_actions)
    return Detections(keyframe_key, frames, bboxes, owners, columns, scores)
