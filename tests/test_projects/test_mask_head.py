"""Laws of masks that are drawn from queries."""

import copy
import math

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from tiny import (
    assert_all_learn,
    batch,
    build_detector,
    data_sample,
    losses_of,
    tiny_detector,
)

from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.parts import Batch
from stmixer_mm.projects.masks.mask_head import MaskQueries, resize
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import DecoderOutput, Queries, StageOutput

MASK_HEAD = dict(
    type='QueryMaskHead',
    loss_mask=dict(type='mmdet.FocalLoss', use_sigmoid=True, loss_weight=20.0),
    loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0),
)
TWO = (10, 10, 30, 60), (60, 10, 80, 50)


def make_head(**settings):
    torch.manual_seed(0)
    sizes = dict(embed_dims=16, num_queries=5, num_classes=4)
    head = MODELS.build(MASK_HEAD | sizes | settings)
    head.init_weights()
    return head


def sample_of(*boxes, img_shape=(64, 96)):
    """A sample of persons whose masks fill their boxes (x1, y1, x2, y2)."""
    sample = data_sample(boxes, [(1,)] * len(boxes), img_shape)
    masks = torch.zeros(len(boxes), *img_shape, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    sample.gt_instances.masks = masks
    return sample


def detector():
    return build_detector(dict(tiny_detector(), mask_head=MASK_HEAD)).train()


def test_attention_is_a_softmax_over_heads_and_cells_in_units_of_its_mean():
    head = make_head(num_heads=2)
    level, bboxes = torch.randn(1, 16, 4, 6), torch.tensor([[20.0, 15, 50, 30]])
    queries = MaskQueries(torch.randn(1, 16), bboxes, torch.tensor([0]))
    # Cells of 16 pixels, some beyond the frame.
    frames = FrameShapes(torch.tensor([[40, 80]]), (64, 96))
    attention = head.attend(level, queries, frames)[0]
    query = head.query(queries.vectors)[0]
    x1, y1, x2, y2 = bboxes[0].tolist()
    expected = torch.zeros(2, 4, 6)
    for part in range(2):
        for row in range(3):  # rows from 48 on, columns from 80 on are padding
            for column in range(5):
                key = head.key.weight[:, :, 0, 0] @ level[0, :, row, column]
                channels = slice(8 * part, 8 * part + 8)
                logit = query[channels] @ (key + head.key.bias)[channels] / math.sqrt(8)
                x, y = 16 * column + 8, 16 * row + 8
                outside = max(x1 - x, x - x2, 0) / (x2 - x1)
                outside += max(y1 - y, y - y2, 0) / (y2 - y1)
                logit = logit - head.outside_tau[part] * outside
                expected[part, row, column] = logit.exp()
    expected *= 2 * 3 * 5 / expected.sum()
    torch.testing.assert_close(attention, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('samples', [(TWO, ()), ((),)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_every_parameter_learns_and_the_other_terms_stay(samples, dtype):
    model, plain = detector(), build_detector(tiny_detector()).train()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k in plain.state_dict()}
    )
    data_samples = [sample_of(*boxes) for boxes in samples]
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype is torch.bfloat16):
        losses, expected = (losses_of(m, *data_samples) for m in (model, plain))
    mask_loss = losses.pop('loss_mask') + losses.pop('loss_dice')
    torch.testing.assert_close(losses, expected)
    assert mask_loss.dtype == torch.float32
    mask_loss.backward()
    assert_all_learn(model.mask_head)
    somebody = samples != ((),)
    assert (mask_loss > 0) == somebody
    assert all(p.grad.any() == somebody for p in model.mask_head.parameters())
    assert any(p.grad.any() for p in model.neck.parameters()) == somebody
    assert bool(model.decoder.spatial_queries.weight.grad.any()) == somebody


def test_loss_and_prediction_are_those_of_each_mask_at_its_own_size():
    """Means over the frame without padding, dice with sums; over the masks their mean.

    A mask without a pixel counts nowhere.
    """
    head = make_head(num_levels=1)
    small = sample_of((5, 5, 30, 30), (0, 0, 0, 0), img_shape=(32, 64))
    samples, sizes = [sample_of(*TWO), small], torch.tensor([(64, 96), (32, 64)])
    frames = FrameShapes(sizes, (64, 96))
    clips = Batch([torch.randn(2, 16, 2, 16, 24)], samples, frames)
    vectors, bboxes = torch.randn(2, 3, 16), torch.rand(2, 3, 4) * 20
    bboxes[..., 2:] += bboxes[..., :2] + 5
    persons = np.array([[0, 2, 1]] * 2)
    stages = [StageOutput(None, None, bboxes)]
    outputs = DecoderOutput(stages, Queries(vectors, None), None)
    relative = bboxes / sizes.flip(1).repeat(1, 2)[:, None]
    predicted = [InstanceData(bboxes=b, queries=torch.arange(3)) for b in relative]
    head.finish(clips, outputs, predicted)
    losses = head.loss(clips, outputs, torch.from_numpy(persons))
    focal, dice = [], []
    for clip, row, person in ((0, 1, 1), (0, 2, 0), (1, 2, 0)):
        place = [clip], [row]
        queries = MaskQueries(vectors[place], bboxes[place], torch.tensor([clip]))
        height, width = samples[clip].img_shape
        logits = resize(head(clips.feats, queries, frames), (64, 96))
        probs = logits[0, :height, :width].sigmoid()
        assert (predicted[clip].masks[row] != (probs > 0.5)).float().mean() < 1e-3
        truth = samples[clip].gt_instances.masks[person].float()
        right = torch.where(truth > 0, probs, 1 - probs)
        alpha = torch.where(truth > 0, 0.25, 0.75)
        focal.append((-alpha * (1 - right) ** 2 * right.log()).mean())
        both, areas = (probs * truth).sum(), probs.sum() + truth.sum()
        dice.append(1 - (2 * both + 1) / (areas + 1))
    torch.testing.assert_close(losses['loss_mask'], 20 * sum(focal) / 3)
    torch.testing.assert_close(losses['loss_dice'], sum(dice) / 3)


def test_predicted_masks_are_those_of_kept_queries_in_chunks_of_any_size():
    model, masks = detector().eval(), []
    model.head.score_thr = 0.0
    samples = data_sample(), data_sample(img_shape=(50, 80), ori_shape=(100, 160))
    for chunk_size in (2, 16):
        model.mask_head.chunk_size = chunk_size
        results = model.test_step(batch(*copy.deepcopy(samples)))
        masks.append([sample.pred_instances.masks for sample in results])
    assert [clip_masks.shape for clip_masks in masks[0]] == [(5, 64, 96), (5, 100, 160)]
    assert masks[0][0].dtype == torch.bool
    assert all(map(torch.equal, *masks))
    model.head.score_thr = 1.0
    (empty,) = model.test_step(batch(data_sample()))
    assert empty.pred_instances.masks.shape == (0, 64, 96)
