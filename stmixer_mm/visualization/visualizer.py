"""Keyframes with their boxes, for the hooks and tools of the OpenMMLab stack."""

from collections.abc import Sequence

import numpy as np
from mmaction.structures import ActionDataSample
from mmaction.visualization import ActionVisualizer
from mmengine.dist import master_only
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.registry import VISUALIZERS
from stmixer_mm.structures import ABSENT, PRESENCE, PRESENT, UNKNOWN, top_actions
from stmixer_mm.visualization.draw import (
    Color,
    draw_detections,
    enlarge,
    person_colors,
    side_by_side,
    write_picture,
)

_STATES = {ABSENT: 'absent', UNKNOWN: 'unknown'}
_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


@VISUALIZERS.register_module()
class STADVisualizer(ActionVisualizer):
    """Draws the keyframe of a clip: ground truth left, predicted boxes right.

    For tubelets it is the middle frame, with the persons in it. Small frames are
    enlarged, so that labels cover little of them. Takes the arguments of mmaction2's
    ``ActionVisualizer``. Names of actions come from ``dataset_meta['classes']``, one
    per label id with the dummy 0 left out.
    """

    @master_only
    def add_datasample(
        self,
        name: str,
        video: np.ndarray,
        data_sample: ActionDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        score_thr: float = 0.3,
        show: bool = False,
        wait_time: float = 0,
        out_path: str | None = None,
        step: int = 0,
    ) -> np.ndarray:
        """Draw a data sample and save or show it.

        Args:
            name: Name under which the visual back ends keep the image.
            video: Clip (T, h, w, 3) uint8 RGB; the entry drawn is ``keyframe_entry`` of
                the data sample, T // 2 by default.
            data_sample: ``gt_instances`` with pixel and ``pred_instances`` with
                normalised boxes.
            draw_gt, draw_pred: Draw the ground truth, the predictions.
            score_thr: Actions with lower scores are not drawn.
            show: Show a window for ``wait_time`` seconds (0: until a key).
            wait_time: See ``show``.
            out_path: File to write instead of using the back ends; ``.jpg`` is appended
                if it has no image suffix.
            step: Kept with the image by the back ends.

        Returns:
            The picture, (h, w, 3) RGB.
        """
        entry = keyframe_entry(data_sample, len(video))
        image, factor = enlarge(np.asarray(video)[entry])
        classes = (self.dataset_meta or {}).get('classes')
        sample, views = data_sample or {}, {}
        if draw_gt and 'gt_instances' in sample:
            views['ground truth'] = draw_ground_truth(
                image, sample.gt_instances, classes, scale=factor, entry=entry
            )
        if draw_pred and 'pred_instances' in sample:
            views['predicted'] = _draw_predictions(
                image, sample.pred_instances, classes, entry, score_thr
            )
        if views:
            headings = [[(heading, None)] for heading in views]
            image = side_by_side([*views.values()], headings)
        self.set_image(image)
        if show:
            self.show(image, win_name=name, wait_time=wait_time)
        if out_path is None:
            self.add_image(name, image, step=step)
        else:
            is_named = out_path.lower().endswith(_IMAGE_SUFFIXES)
            write_picture(out_path if is_named else f'{out_path}.jpg', image)
        return image


def _draw_predictions(
    frame: np.ndarray,
    instances: InstanceData,
    classes: Sequence[str] | None,
    entry: int,
    score_thr: float,
) -> np.ndarray:
    numbers, bboxes_norm = boxes_at(instances, entry)
    actions = [
        [(a.action, a.score) for a in top_actions(row, classes, score_thr)]
        for row in _as_array(instances.scores)[numbers]
    ]
    bboxes = bboxes_norm * (frame.shape[1::-1] * 2)
    return draw_detections(frame, bboxes, actions, masks=_masks_of(instances))


def draw_ground_truth(
    frame: np.ndarray,
    instances: InstanceData,
    classes: Sequence[str] | None,
    *,
    scale: float = 1,
    entry: int,
) -> np.ndarray:
    """Draw persons and their actions on a copy of a frame (h, w, 3).

    Args:
        frame: uint8 RGB.
        instances: ``bboxes`` in pixels, see :func:`boxes_at`, and ``labels``,
            (k, num_classes) multi-hot or (k, 1) numbers of classes.
        classes: See :func:`top_actions`.
        scale: Factor by which the frame was enlarged.
        entry: Number of the frame in its clip, from 0.
    """
    numbers, bboxes = boxes_at(instances, entry)
    labels = _as_array(instances.labels)
    if labels.shape[-1] == 1:
        columns = labels.astype(int).ravel()
        labels = np.eye(columns.max(initial=0) + 1)[columns]
    actions = [
        [(action.action, None) for action in top_actions(row, classes, 0.5)]
        for row in labels[numbers]
    ]
    return draw_detections(
        frame,
        bboxes * scale,
        actions,
        colors=person_colors(numbers.tolist()),
        masks=_masks_of(instances),
    )


def keyframe_entry(data_sample: ActionDataSample | None, num_frames: int) -> int:
    """The entry of the keyframe in a clip, by default the middle one."""
    return (data_sample or {}).get('keyframe_entry', num_frames // 2)


def boxes_at(instances: InstanceData, entry: int) -> tuple[np.ndarray, np.ndarray]:
    """Persons in a frame of a clip: their numbers from 0 (m,) and boxes (m, 4).

    Args:
        instances: ``bboxes`` (k, 4), which are in any frame; or (k, K, 4) of tubelets,
            with their ``states`` or, if predicted, ``person_scores`` (k, K).
        entry: Number of the frame in the clip, from 0.
    """
    bboxes = _as_array(instances.bboxes)
    if bboxes.ndim == 2:
        return np.arange(len(bboxes)), bboxes
    if 'states' in instances:
        is_present = _as_array(instances.states) == PRESENT
    else:
        is_present = _as_array(instances.person_scores) >= PRESENCE
    numbers = np.flatnonzero(is_present[:, entry])
    return numbers, bboxes[numbers, entry]


def describe_states(instances: InstanceData, entry: int) -> list[tuple[str, Color]]:
    """'absent' or 'unknown' for each person without a box in a frame, and its colour."""
    states = instances.states[:, entry].tolist()
    colors = person_colors(range(len(states)))
    pairs = zip(states, colors, strict=True)
    return [(_STATES[state], color) for state, (color,) in pairs if state in _STATES]


def _masks_of(instances: InstanceData) -> np.ndarray | None:
    """Masks of persons in a keyframe; tubelets have none."""
    return _as_array(instances.masks) if 'masks' in instances else None


def _as_array(values: Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values, float)
