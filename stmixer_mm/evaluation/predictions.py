"""What a data sample predicts, as arrays of a size that can be collected."""

import numpy as np


def select_actions(sample: dict, num_classes: int, score_thr: float) -> dict:
    """Boxes of a sample and what they are said to do with a score above score_thr.

    Returns:
        ``bboxes`` (n, 4) float32, in [0, 1]; ``scores`` (n, num_classes) float32; and
        for each of N actions ``box`` (N,) int32, ``class`` (N,) int16, the column of
        its score from 1 on, and ``score`` (N,) float32.

    Raises:
        ValueError: scores have another width.
    """
    prediction = sample['pred_instances']
    scores = np.asarray(to_numpy(prediction['scores']), dtype=np.float32)
    bboxes = np.asarray(to_numpy(prediction['bboxes']), dtype=np.float32)
    if scores.ndim != 2 or scores.shape[1] != num_classes:
        raise ValueError(
            f'predictions of {sample["video_id"]} have scores of shape '
            f'{scores.shape}, but the metric has num_classes={num_classes}; give it '
            'the num_classes of the model.'
        )
    box, column = np.nonzero(scores[:, 1:] > score_thr)
    column += 1
    return {
        'bboxes': bboxes.reshape(-1, 4),
        'scores': scores,
        'box': box.astype(np.int32),
        'class': column.astype(np.int16),
        'score': scores[box, column],
    }


def to_numpy(array):
    """A tensor as an array; anything else as it is."""
    return array.detach().float().cpu().numpy() if hasattr(array, 'detach') else array


def join_field(
    results: list[dict], key: str, shape: tuple[int, ...], dtype: type
) -> np.ndarray:
    """One field of all results in one array, also when there are none."""
    return np.concatenate([np.zeros(shape, dtype), *(r[key] for r in results)])
