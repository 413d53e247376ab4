"""Laws of masks that are drawn from queries."""

import copy
import math

import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from tiny import (
    assert_all_learn,
    batch,
    build_detector,
    data_sample,
    losses_of,
    tiny_detector,
)
from tiny import nobody as nobody_without_masks
from tiny import two as two_without_masks

import stmixer_mm.projects.masks  # noqa: F401
from stmixer_mm.errors import UserError
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
WHOLE = FrameShapes(torch.tensor([[64, 96]]), (64, 96))


def make_head(embed_dims=16, **settings):
    torch.manual_seed(0)
    sizes = dict(embed_dims=embed_dims, num_queries=5, num_classes=4)
    head = MODELS.build(dict(MASK_HEAD, **sizes, **settings))
    head.init_weights()
    return head


def make_queries(number, embed_dims=16):
    low = torch.rand(number, 2) * torch.tensor([48, 32])
    return MaskQueries(
        torch.randn(number, embed_dims),
        torch.cat((low, low + 10 + torch.rand(number, 2) * 20), dim=1),
        torch.zeros(number, dtype=torch.long),
    )


def make_feats(sizes, embed_dims=16, clips=1):
    return [torch.randn(clips, embed_dims, 2, *size) for size in sizes]


def masks_of(*boxes, img_shape=(64, 96)):
    """Masks that fill boxes (x1, y1, x2, y2)."""
    masks = torch.zeros(len(boxes), *img_shape, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def two():
    sample = two_without_masks()
    sample.gt_instances.masks = masks_of((10, 10, 30, 60), (60, 10, 80, 50))
    return sample


def nobody():
    sample = nobody_without_masks()
    sample.gt_instances.masks = masks_of()
    return sample


def detector():
    return build_detector(dict(tiny_detector(), mask_head=MASK_HEAD)).train()


def loss_of(head, feats, vectors, bboxes, persons, samples, frames=WHOLE):
    seen = DecoderOutput(
        [StageOutput(None, None, bboxes)], Queries(vectors, None), None
    )
    return head.loss(Batch(feats, samples, frames), seen, torch.tensor(persons))


@pytest.mark.parametrize(
    'num_levels, embed_dims, num_heads', [(1, 32, 4), (4, 48, 3), (5, 16, 8)]
)
def test_any_number_of_levels_and_any_width(num_levels, embed_dims, num_heads):
    head = make_head(embed_dims, num_levels=num_levels, num_heads=num_heads)
    # More levels than are read, as of a neck with further ones.
    feats = make_feats([(16, 24), (8, 12), (4, 6), (2, 3), (1, 2), (1, 1)], embed_dims)
    logits = head(feats, make_queries(3, embed_dims), WHOLE)
    assert logits.shape == (3, 16, 24)
    logits.square().sum().backward()
    assert_all_learn(head)


def test_attention_is_a_softmax_over_heads_and_cells_in_units_of_its_mean():
    head = make_head(num_heads=2)
    (level,), queries = make_feats([(4, 6)]), make_queries(1)
    level = level[:, :, 0]
    # Cells of 16 pixels, some beyond the frame.
    frames = FrameShapes(torch.tensor([[40, 80]]), (64, 96))
    found = head.attend(level, queries, frames)[0]
    query = head.query(queries.vectors)[0]
    x1, y1, x2, y2 = queries.bboxes[0].tolist()
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
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('samples', [(two, nobody), (nobody,)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_every_parameter_learns_and_the_other_terms_stay(samples, dtype):
    model, plain = detector(), build_detector(tiny_detector()).train()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k in plain.state_dict()}
    )
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype is torch.bfloat16):
        losses, expected = (
            losses_of(one, *(make() for make in samples)) for one in (model, plain)
        )
    assert {*losses} - {*expected} == {'loss_mask', 'loss_dice'}
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    mask_loss = losses['loss_mask'] + losses['loss_dice']
    assert mask_loss.dtype == torch.float32
    mask_loss.backward()
    assert_all_learn(model.mask_head)
    somebody = samples != (nobody,)
    assert (mask_loss > 0) == somebody
    assert all(p.grad.any() == somebody for p in model.mask_head.parameters())
    assert any(p.grad.any() for p in model.neck.parameters()) == somebody
    assert bool(model.decoder.spatial_queries.weight.grad.any()) == somebody


def test_the_loss_is_that_of_each_mask_at_its_own_size():
    """Means over the frame without padding, dice with sums; over the masks their mean.

    A mask without a pixel counts nowhere.
    """
    head = make_head(num_levels=1)
    small = data_sample([(5, 5, 30, 30)] * 2, [(1,)] * 2, (32, 64))
    small.gt_instances.masks = masks_of(
        (5, 5, 30, 30), (0, 0, 0, 0), img_shape=(32, 64)
    )
    samples = [two(), small]
    feats = make_feats([(16, 24)], clips=2)
    frames = FrameShapes(torch.tensor([(64, 96), (32, 64)]), (64, 96))
    vectors, bboxes = torch.randn(2, 3, 16), torch.rand(2, 3, 4) * 20
    bboxes[..., 2:] += bboxes[..., :2] + 5
    persons = [[0, 2, 1], [0, 2, 1]]
    losses = loss_of(head, feats, vectors, bboxes, persons, samples, frames)
    focal, dice = [], []
    for clip, row, person in ((0, 1, 1), (0, 2, 0), (1, 2, 0)):
        queries = MaskQueries(
            vectors[clip, row][None], bboxes[clip, row][None], torch.tensor([clip])
        )
        height, width = samples[clip].img_shape
        logits = resize(head(feats, queries, frames), (64, 96))[0, :height, :width]
        truth = samples[clip].gt_instances.masks[person].float()
        found = logits.sigmoid()
        right = torch.where(truth > 0, found, 1 - found)
        alpha = torch.where(truth > 0, 0.25, 0.75)
        focal.append((-alpha * (1 - right) ** 2 * right.log()).mean())
        dice.append(
            1 - (2 * (found * truth).sum() + 1) / (found.sum() + truth.sum() + 1)
        )
    torch.testing.assert_close(losses['loss_mask'], 20 * sum(focal) / 3)
    torch.testing.assert_close(losses['loss_dice'], sum(dice) / 3)


def test_predicted_masks_are_those_of_kept_queries_in_chunks_of_any_size():
    model = detector().eval()
    model.head.score_thr = 0.0
    samples = [data_sample(), data_sample(img_shape=(50, 80), name='other,0001')]
    samples[1].set_metainfo(dict(ori_shape=(100, 160)))
    found = []
    for chunk_size in (1, 2, 16):
        model.mask_head.chunk_size = chunk_size
        results = model.test_step(batch(*copy.deepcopy(samples)))
        found.append([one.pred_instances.masks for one in results])
    assert [one.shape for one in found[0]] == [(5, 64, 96), (5, 100, 160)]
    assert found[0][0].dtype == torch.bool
    for masks in found[1:]:
        assert all(map(torch.equal, masks, found[0]))
    model.head.score_thr = 1.0
    (empty,) = model.test_step(batch(data_sample()))
    assert empty.pred_instances.masks.shape == (0, 64, 96)


def test_it_learns_the_masks_of_a_batch():
    torch.manual_seed(0)
    head, sample = make_head(32, num_levels=2), two()
    feats, vectors = make_feats([(16, 24), (8, 12)], 32), torch.randn(1, 2, 32)
    bboxes = sample.gt_instances.bboxes[None]
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(60):
        losses = loss_of(head, feats, vectors, bboxes, [[1, 2]], [sample])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    found = InstanceData(bboxes=bboxes[0] / torch.tensor([96, 64, 96, 64]))
    found.queries = torch.arange(2)
    seen = DecoderOutput([], Queries(vectors, None), None)
    (found,) = head.finish(Batch(feats, [sample], WHOLE), seen, [found])
    masks, truth = found.masks, sample.gt_instances.masks
    overlap = (masks & truth).sum(dim=(1, 2)) / (masks | truth).sum(dim=(1, 2))
    assert (overlap > 0.8).all(), overlap


def test_images_have_masks_as_mmdet_has_them():
    hosted = two()
    masks = hosted.gt_instances.masks.numpy().astype('uint8')
    hosted.gt_instances.masks = BitmapMasks(masks, 64, 96)
    model = detector()
    assert losses_of(model, hosted)['loss_mask'] == losses_of(model, two())['loss_mask']


def test_levels_and_samples_that_do_not_fit():
    with pytest.raises(UserError, match='num_levels=4'):
        make_head(num_levels=5).check_feats(make_feats([(4, 6)] * 4))
    with pytest.raises(UserError, match='masks'):
        losses_of(detector(), two_without_masks())
