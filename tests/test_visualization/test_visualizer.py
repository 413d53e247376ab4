import numpy as np
import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData

from stmixer_mm.registry import VISUALIZERS
from stmixer_mm.visualization.draw import draw_detections, enlarge, side_by_side

CLIP = np.stack([np.full((60, 80, 3), 40 * i, np.uint8) for i in range(4)])


@pytest.fixture
def sample():
    bboxes, labels = torch.tensor([[8.0, 6, 40, 54]]), torch.tensor([[0.0, 0, 1]])
    bboxes_norm, scores = np.array([[0.1, 0.1, 0.5, 0.9]]), np.array([[0, 0.8, 0.1]])
    return ActionDataSample(
        gt_instances=InstanceData(bboxes=bboxes, labels=labels),
        pred_instances=InstanceData(bboxes=bboxes_norm, scores=scores),
    )


@pytest.fixture
def visualizer():
    visualizer = VISUALIZERS.build(dict(type='STADVisualizer', name='test'))
    visualizer.dataset_meta = dict(classes=('stand', 'walk'))
    return visualizer


def both_views(true, predicted):
    """The keyframe with a person of the ground truth, and one that was found."""
    frame, factor = enlarge(CLIP[2])
    pictures = [
        draw_detections(frame, np.multiply([true], factor), [[('walk', None)]]),
        draw_detections(frame, np.multiply([predicted], factor), [[('stand', 0.8)]]),
    ]
    return side_by_side(pictures, ([('ground truth', None)], [('predicted', None)]))


def test_keyframe_with_ground_truth_left_and_predictions_right(visualizer, sample):
    image = visualizer.add_datasample('a', CLIP, sample)
    assert np.array_equal(image, both_views([8, 6, 40, 54], [8, 6, 40, 54]))


def test_of_tubelets_the_middle_frame_is_drawn(visualizer, sample):
    truth = torch.zeros(2, 4, 4)
    truth[0, 2] = torch.tensor([8.0, 6, 40, 54])
    bboxes = np.zeros((2, 4, 4))
    bboxes[:, 2] = [0.5, 0.1, 0.9, 0.9], [0, 0, 0.2, 0.2]
    labels, scores = torch.eye(3)[[2, 1]], np.array([[0, 0.8, 0.1], [0, 0.7, 0.9]])
    sample.gt_instances = InstanceData(bboxes=truth, labels=labels)
    sample.gt_instances.states = torch.tensor([[0, 0, 1, 0], [1, 1, -1, 1]])
    sample.pred_instances = InstanceData(bboxes=bboxes, scores=scores)
    person_scores = [[0.1, 0.1, 0.5, 0.1], [0.9, 0.9, 0.4, 0.9]]
    sample.pred_instances.person_scores = np.array(person_scores)
    image = visualizer.add_datasample('a', CLIP, sample)
    assert np.array_equal(image, both_views([8, 6, 40, 54], [40, 6, 72, 54]))


def test_what_is_drawn_can_be_chosen(visualizer, sample):
    for options in dict(draw_gt=False), dict(draw_pred=False):
        image = visualizer.add_datasample('a', CLIP, sample, **options)
        assert image.shape[1] == 480
    assert np.array_equal(visualizer.add_datasample('a', CLIP), enlarge(CLIP[2])[0])


def test_back_ends_get_the_picture(sample, tmp_path):
    cfg = dict(type='STADVisualizer', vis_backends=[dict(type='LocalVisBackend')])
    visualizer = VISUALIZERS.build(dict(cfg, name='b', save_dir=str(tmp_path)))
    visualizer.add_datasample('key', CLIP, sample, step=3)
    assert [path.name for path in tmp_path.rglob('*.png')] == ['key_3.png']
