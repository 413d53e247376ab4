"""Laws of the boxes that queries start from."""

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from tiny import build_detector, losses_of, nobody, tiny_detector, two

from stmixer_mm.models.boxes import xyzr_to_xyxy
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.projects.proposals.learned_boxes import grid_bboxes
from stmixer_mm.registry import MODELS

SHAPES = FrameShapes(torch.tensor([[64, 96], [50, 70]]), (64, 96))


def build(kind, num_queries=6, **options):
    sizes = dict(num_queries=num_queries, embed_dims=16)
    return MODELS.build(dict(type=f'{kind}Boxes', **sizes, **options))


@pytest.mark.parametrize('kind', ['WholeFrame', 'Learned'])
def test_a_box_for_each_query_within_its_frame(kind):
    bboxes = xyzr_to_xyxy(build(kind).predict([], SHAPES))
    assert bboxes.shape == (2, 6, 4) and bboxes.dtype == torch.float32
    frames = SHAPES.img_shapes.flip(-1)[:, None]
    assert (bboxes[..., :2] >= -1e-3).all() and (bboxes[..., 2:] <= frames + 1e-3).all()
    assert (bboxes[..., 2:] - bboxes[..., :2]).min() > 1


@pytest.mark.parametrize('num_boxes', [1, 2, 7, 97, 100])
def test_grid_tiles_the_square(num_boxes):
    bboxes = grid_bboxes(num_boxes).double()
    width, height = (bboxes[:, 2:] - bboxes[:, :2]).unbind(-1)
    assert (width * height).sum().item() == pytest.approx(1, abs=1e-5)
    overlaps = bbox_overlaps(bboxes, bboxes, mode='iof') - torch.eye(num_boxes)
    assert overlaps.max() < 1e-5
    assert width.max() < 2.01 * width.min()


def test_learned_boxes_stretch_with_the_frame_and_not_with_the_padding():
    learned = build('Learned')
    learned.relative_xyzr.data.add_(torch.randn(6, 4))
    small = learned.predict([], FrameShapes(torch.tensor([[32, 48]]), (64, 96)))
    large = learned.predict([], FrameShapes(torch.tensor([[64, 144]]), (64, 160)))
    stretched = xyzr_to_xyxy(small) * torch.tensor([3, 2, 3, 2])
    torch.testing.assert_close(stretched, xyzr_to_xyxy(large), rtol=1e-4, atol=1e-3)


def test_gradients_reach_each_learned_box():
    model = build_detector(
        tiny_detector() | dict(initial_boxes=dict(type='LearnedBoxes'))
    )
    sum(losses_of(model, two(), nobody()).values()).backward()
    assert model.initial_boxes.relative_xyzr.grad.abs().sum(dim=-1).min() > 0
