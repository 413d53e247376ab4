"""Keyframes with their boxes, for the hooks and tools of the OpenMMLab stack."""

from pathlib import Path

import numpy as np
from mmaction.structures import ActionDataSample
from mmaction.visualization import ActionVisualizer
from mmengine.dist import master_only
from mmengine.structures import InstanceData

from stmixer_mm.registry import VISUALIZERS
from stmixer_mm.visualization.draw import (
    draw_detections,
    enlarge,
    side_by_side,
    write_picture,
)

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


@VISUALIZERS.register_module()
class STADVisualizer(ActionVisualizer):
    """Draws the keyframe of a clip: true boxes left, predicted ones right.

    Small frames are enlarged, so that labels cover little of them.
    Takes the arguments of mmaction2's ``ActionVisualizer``. Names of actions come
    from ``dataset_meta['classes']``, one per label id with the dummy 0 left out.
    """

    @master_only
    def add_datasample(
        self,
        name: str,
        video: np.ndarray,
        data_sample: ActionDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        draw_score: bool = True,
        score_thr: float = 0.3,
        show: bool = False,
        wait_time: float = 0,
        out_path: str | None = None,
        step: int = 0,
    ) -> np.ndarray:
        """Draw a data sample and save or show it.

        Args:
            name (str): Under which the visual back ends keep the image.
            video (np.ndarray): Clip (T, h, w, 3) uint8 RGB; entry T // 2 is drawn.
            data_sample (ActionDataSample, optional): ``gt_instances`` with pixel and
                ``pred_instances`` with normalised boxes.
            draw_gt, draw_pred, draw_score (bool): What to draw.
            score_thr (float): Actions with lower scores are not drawn.
            show (bool): Show a window for ``wait_time`` seconds (0: until a key).
            out_path (str, optional): File to write instead of using the back ends;
                ``.jpg`` is appended where it has no suffix of an image.
            step (int): Kept with the image by the back ends.

        Returns:
            np.ndarray: What was drawn, (h, w, 3) RGB.
        """
        frame, factor = enlarge(np.asarray(video)[len(video) // 2])
        views, headings = [], []
        if data_sample is not None:
            if draw_gt and 'gt_instances' in data_sample:
                boxes, labels = _as_arrays(data_sample.gt_instances, 'labels')
                actions = self._actions(labels, 0.5, with_score=False)
                views.append(draw_detections(frame, boxes * factor, actions))
                headings.append([('truth', None)])
            if draw_pred and 'pred_instances' in data_sample:
                boxes_norm, scores = _as_arrays(data_sample.pred_instances, 'scores')
                height, width = frame.shape[:2]
                boxes = boxes_norm * (width, height, width, height)
                actions = self._actions(scores, score_thr, with_score=draw_score)
                views.append(draw_detections(frame, boxes, actions))
                headings.append([('predicted', None)])
        image = side_by_side(views, headings) if views else frame

        self.set_image(image)
        if show:
            self.show(image, win_name=name, wait_time=wait_time)
        if out_path is None:
            self.add_image(name, image, step=step)
        else:
            path = Path(out_path)
            if path.suffix.lower() not in _IMAGE_SUFFIXES:
                path = path.with_name(f'{path.name}.jpg')
            write_picture(path, image)
        return image

    def _actions(
        self, scores: np.ndarray, score_thr: float, *, with_score: bool
    ) -> list[list[tuple[str, float | None]]]:
        classes = (self.dataset_meta or {}).get('classes')
        return [
            [
                (label, score if with_score else None)
                for label, score in top_actions(row, classes, score_thr)
            ]
            for row in scores
        ]


def top_actions(
    scores: np.ndarray, classes: list[str] | None, score_thr: float
) -> list[tuple[str, float]]:
    """(label, score) pairs of one box, best first, from ``score_thr`` upwards.

    Args:
        scores (np.ndarray): (num_classes,), entry 0 is the dummy.
        classes (list[str], optional): ``classes[i]`` names label id ``i + 1``.
    """
    order = 1 + np.argsort(-scores[1:], kind='stable')
    return [
        (
            classes[index - 1]
            if classes and index <= len(classes)
            else f'action {index}',
            float(scores[index]),
        )
        for index in order
        if scores[index] >= score_thr
    ]


def _as_arrays(instances: InstanceData, key: str) -> tuple[np.ndarray, np.ndarray]:
    def array(value) -> np.ndarray:
        if hasattr(value, 'detach'):
            value = value.detach().cpu().float().numpy()
        return np.asarray(value, float)

    return array(instances.bboxes), array(instances[key])
