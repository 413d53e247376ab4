"""Which boxes a file of predictions may hold."""

import numpy as np

# Detectors' boxes may leave the frame, but by no more than its size.
_LOWEST, _HIGHEST = -1, 2


def faulty_boxes(bboxes: np.ndarray) -> np.ndarray:
    """Indices of the boxes (n, 4) that are upside down or far outside [0, 1]."""
    is_near = ((bboxes >= _LOWEST) & (bboxes <= _HIGHEST)).all(axis=1)
    return np.flatnonzero(~is_near | (bboxes[:, :2] > bboxes[:, 2:]).any(axis=1))


def box_message(bbox: np.ndarray) -> str:
    """What is wrong with one of them."""
    shown = '(' + ', '.join(f'{value:g}' for value in bbox) + ')'
    if not np.isfinite(bbox).all():
        return f'the box {shown} is not finite; remove it.'
    if bbox.min() >= _LOWEST and bbox.max() <= _HIGHEST:
        return f'the box {shown} is upside down; write it as x1,y1,x2,y2.'
    return (
        f'the box {shown} lies far outside [0, 1]; divide x by the width, y by the '
        'height.'
    )
