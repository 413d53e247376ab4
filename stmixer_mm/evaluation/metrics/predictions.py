"""What a data sample predicts, as arrays of a size that can be collected."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric

from stmixer_mm.errors import UserError

# Detectors' boxes may leave the frame, but by no more than its size.
BOX_LOW, BOX_HIGH = -1, 2


class ConfiguredMetric(NamedTuple):
    """A metric and the number of the score column of each action id."""

    metric: BaseMetric
    num_classes: int | None  # None: of a kind that can only evaluate dumps
    columns: Mapping[int, int]
    has_score_thr: bool = False  # The config sets it.


class PlacedSample(NamedTuple):
    """A sample as a metric takes it, and where in a file it comes from."""

    place: str
    sample: dict


def box_message(*bbox: float) -> str:
    """What is wrong with a box x1, y1, x2, y2."""
    shown = '(' + ', '.join(f'{value:g}' for value in bbox) + ')'
    if not np.isfinite(bbox).all():
        return f'the box {shown} is not finite; remove the line.'
    if all(BOX_LOW <= value <= BOX_HIGH for value in bbox):
        return f'the box {shown} is upside down; write it as x1,y1,x2,y2.'
    return (
        f'the box {shown} lies far outside [0, 1]; divide x by the width, y by the '
        'height.'
    )


class Actions(NamedTuple):
    """What the boxes of many samples are said to do, by box; N of them."""

    box: np.ndarray  # (N,) int32, which of all boxes
    classes: np.ndarray  # (N,) unsigned
    scores: np.ndarray  # (N,) float

    def of(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n,) and scores (n,) of one class, in the order of the boxes."""
        # Sorting them all by class would take as long, and three times the memory.
        index = np.flatnonzero(self.classes == column)
        return self.box[index], self.scores[index]


def select_actions(
    sample: dict,
    num_classes: int,
    score_thr: float,
    *,
    counted: np.ndarray | None = None,
    frame_key: str = 'timestamp',
) -> dict:
    """Boxes of a sample and what they are said to do with a score above score_thr.

    Args:
        sample: Its ``pred_instances`` have ``bboxes`` and ``scores``.
        num_classes: Columns of the scores, 0 the dummy.
        score_thr: Scores up to it do not count.
        counted: (num_classes,) bool, columns that count; None: all but the dummy.
        frame_key: Entry that tells the keyframe in messages.

    Returns:
        ``bboxes`` (n, 4), in [0, 1]; ``scores`` (n, num_classes); ``num_actions``
        (n,), and of these N actions, box by box, ``class`` (N,), the column of its
        score from 1 on, and ``score`` (N,). Floats are of 32 bits, or 64 where the
        sample's are, integers as small as num_classes allows.

    Raises:
        ValueError: scores have another width, or boxes or scores are not numbers.
    """
    prediction = sample['pred_instances']
    scores, bboxes = (_floats(prediction[name]) for name in ('scores', 'bboxes'))
    if scores.ndim != 2 or scores.shape[1] != num_classes:
        raise UserError(
            f'predictions of {sample["video_id"]} have scores of shape '
            f'{scores.shape}, but the metric has num_classes={num_classes}; give it '
            'the num_classes of the model.'
        )
    for name, values in (('scores', scores), ('bboxes', bboxes)):
        if np.isnan(values).any():
            raise UserError(
                f'predictions of {sample["video_id"]}, {frame_key} '
                f'{sample.get(frame_key)}, have {name} that are not numbers; '
                'the model has diverged, so train it again with a lower learning rate.'
            )
    is_action = scores > score_thr
    is_action[:, 0] = False
    if counted is not None:
        is_action &= counted
    small = np.min_scalar_type(num_classes)
    return {
        'bboxes': bboxes.reshape(-1, 4),
        'scores': scores,
        'num_actions': is_action.sum(axis=1).astype(small),
        'class': np.nonzero(is_action)[1].astype(small),
        'score': scores[is_action],
    }


def to_numpy(array):
    """A tensor as an array; anything else as it is."""
    if not hasattr(array, 'detach'):
        return array
    if array.element_size() < 4:  # numpy has no bfloat16
        array = array.float()
    return array.detach().cpu().numpy()


def _floats(array) -> np.ndarray:
    """Of 32 bits, which models give, or 64, which files have."""
    array = np.asarray(to_numpy(array))
    return array if array.dtype == np.float64 else array.astype(np.float32)


def join_actions(results: Sequence[dict]) -> Actions:
    """The actions of all results, whose boxes are numbered one after the other."""
    num_actions = join_field(results, 'num_actions', (0,), np.uint8)
    return Actions(
        np.repeat(np.arange(len(num_actions), dtype=np.int32), num_actions),
        join_field(results, 'class', (0,), np.uint8),
        join_field(results, 'score', (0,), np.float32),
    )


def join_field(
    results: Sequence[dict], key: str, shape: tuple[int, ...], dtype: type
) -> np.ndarray:
    """One field of all results in one array, also when there are none.

    It is taken out of the results.
    """
    parts = [result.pop(key) for result in results] or [np.zeros(shape, dtype)]
    return np.concatenate(parts)
