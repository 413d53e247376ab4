import copy
import math

import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from tiny import (
    batch,
    build_detector,
    data_sample,
    tiny_detector,
)

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


def make_head(embed_dims=16, **settings):
    torch.manual_seed(0)
    sizes = dict(embed_dims=embed_dims, num_queries=5, num_classes=4)
    head = MODELS.build(dict(MASK_HEAD, **sizes, **settings))
    head.init_weights()
    return head


def loss_of(head, feats, vectors, bboxes, persons, samples, frames):
    seen = DecoderOutput(
        [StageOutput(None, None, bboxes)], Queries(vectors, None), None
    )
    return head.loss(Batch(feats, samples, frames), seen, persons)


def make_queries(clips, embed_dims=16, size=(64, 96)):
    number = len(clips)
    low = torch.rand(number, 2) * torch.tensor(size[::-1]) / 2
    return MaskQueries(
        torch.randn(number, embed_dims),
        torch.cat((low, low + 10 + torch.rand(number, 2) * 20), dim=1),
        torch.tensor(clips, dtype=torch.long),
    )


def make_feats(sizes, embed_dims=16, clips=1, frames=2):
    return [torch.randn(clips, embed_dims, frames, *size) for size in sizes]


def frames_of(*shapes, pad_shape=(64, 96)):
    return FrameShapes(torch.tensor(shapes), pad_shape)


def with_masks(sample, *boxes):
    """Masks that fill boxes (x1, y1, x2, y2)."""
    masks = torch.zeros(len(boxes), *sample.img_shape, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    sample.gt_instances.masks = masks
    return sample


def two():
    sample = data_sample([(5, 5, 40, 60), (50, 10, 90, 50)], [(1,), (2, 3)])
    return with_masks(sample, (10, 10, 30, 60), (60, 10, 80, 50))


def nobody():
    return with_masks(data_sample(name='empty,0001'))


def detector(**settings):
    return build_detector(dict(tiny_detector(), mask_head={**MASK_HEAD, **settings}))


def losses_of(model, *samples):
    data = batch(*map(copy.deepcopy, samples))
    return model(**model.train().data_preprocessor(data, training=True), mode='loss')


@pytest.mark.parametrize('num_levels', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('embed_dims, num_heads', [(16, 8), (32, 4), (48, 3)])
def test_any_number_of_levels_and_any_width(num_levels, embed_dims, num_heads):
    head = make_head(embed_dims, num_levels=num_levels, num_heads=num_heads)
    # More levels than are read, as of a neck with further ones.
    feats = make_feats([(16, 24), (8, 12), (4, 6), (2, 3), (1, 2), (1, 1)], embed_dims)
    logits = head(feats, make_queries([0, 0, 0], embed_dims), frames_of((64, 96)))
    assert logits.shape == (3, 16, 24)
    logits.square().sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in head.parameters()
    )


def test_attention_is_a_softmax_over_heads_and_cells_in_units_of_its_mean():
    head = make_head(num_heads=2)
    (level,), queries = make_feats([(4, 6)], frames=1), make_queries([0])
    frames = frames_of((40, 80))  # cells of 16 pixels, some beyond the frame
    found = head.attend(level[:, :, 0], queries, frames)[0]
    query = head.query(queries.vectors)[0]
    x1, y1, x2, y2 = queries.bboxes[0].tolist()
    expected = torch.zeros(2, 4, 6)
    for part in range(2):
        for row in range(3):  # rows from 48 on, columns from 80 on are padding
            for column in range(5):
                key = head.key.weight[:, :, 0, 0] @ level[0, :, 0, row, column]
                channels = slice(8 * part, 8 * part + 8)
                logit = query[channels] @ (key + head.key.bias)[channels] / math.sqrt(8)
                x, y = 16 * column + 8, 16 * row + 8
                outside = max(x1 - x, x - x2, 0) / (x2 - x1)
                outside += max(y1 - y, y - y2, 0) / (y2 - y1)
                logit = logit - head.outside_tau[part] * outside
                expected[part, row, column] = logit.exp()
    expected *= 2 * 3 * 5 / expected.sum()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns_and_the_other_terms_stay():
    model, plain = detector(), build_detector(tiny_detector())
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k in plain.state_dict()}
    )
    losses, expected = (losses_of(one, two(), nobody()) for one in (model, plain))
    assert {*losses} - {*expected} == {'loss_mask', 'loss_dice'}
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    (losses['loss_mask'] + losses['loss_dice']).backward()
    grads = [parameter.grad for parameter in model.mask_head.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    assert sum(grad.abs().sum() > 0 for grad in grads) == len(grads)
    # What they look at learns, too, and what they come from.
    assert any(p.grad.abs().sum() > 0 for p in model.neck.parameters())
    assert model.decoder.spatial_queries.weight.grad.abs().sum() > 0


def test_without_a_person_the_loss_is_a_zero_that_reaches_every_parameter():
    model = detector()
    losses = losses_of(model, nobody())
    assert losses['loss_mask'] == losses['loss_dice'] == 0
    (losses['loss_mask'] + losses['loss_dice']).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for p in model.mask_head.parameters()
    )


def test_only_matched_queries_are_drawn_and_matching_is_not_done_again(monkeypatch):
    model, drawn, assigned = detector(), [], []
    forward, assign = model.mask_head.forward, model.head.assigner.assign
    monkeypatch.setattr(
        model.mask_head,
        'forward',
        lambda *args: drawn.append(args[1]) or forward(*args),
    )
    monkeypatch.setattr(
        model.head.assigner,
        'assign',
        lambda *args, **given: assigned.append(assign(*args, **given)) or assigned[-1],
    )
    losses_of(model, nobody(), two())
    assert len(assigned) == 2 * len(model.decoder.stages)
    (queries,) = drawn
    assert queries.clips.tolist() == [1, 1]
    last = assigned[-1].gt_inds.nonzero().squeeze(1)
    assert len(last) == 2


def test_the_loss_is_that_of_each_mask_at_its_own_size():
    """Means over the frame without padding, dice with sums; over the masks their mean."""
    head = make_head(num_levels=1)
    samples = [
        two(),
        with_masks(data_sample([(5, 5, 30, 30)], [(1,)], (32, 64)), (5, 5, 30, 30)),
    ]
    feats = make_feats([(16, 24)], clips=2)
    frames, persons = (
        frames_of((64, 96), (32, 64)),
        torch.tensor([[0, 2, 1], [0, 0, 1]]),
    )
    vectors, bboxes = torch.randn(2, 3, 16), torch.rand(2, 3, 4) * 20
    bboxes[..., 2:] += bboxes[..., :2] + 5
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


def test_a_mask_without_a_pixel_counts_nowhere():
    model, known, partly = detector(), two(), two()
    known.gt_instances = known.gt_instances[:1]
    partly.gt_instances.masks[1] = False
    # Both matched the same, as the second person is far from the first one's query.
    losses = losses_of(model, partly)
    head = model.mask_head
    feats, frames = make_feats([(16, 24), (8, 12), (4, 6), (2, 3)]), frames_of((64, 96))
    vectors, bboxes = torch.randn(1, 2, 16), torch.tensor([[[1.0, 1, 9, 9]] * 2])
    of_clip = feats, vectors, bboxes
    both = loss_of(head, *of_clip, torch.tensor([[1, 2]]), [partly], frames)
    one = loss_of(head, *of_clip, torch.tensor([[1, 0]]), [known], frames)
    assert both == one
    assert losses['loss_mask'] > 0


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
    assert 'query_vectors' not in results[0].pred_instances
    model.head.score_thr = 1.0
    (empty,) = model.test_step(batch(data_sample()))
    assert empty.pred_instances.masks.shape == (0, 64, 96)


def test_bfloat16():
    model = detector()
    with torch.autocast('cpu', torch.bfloat16):
        losses = losses_of(model, two())
    full = losses_of(model, two())
    for name in ('loss_mask', 'loss_dice'):
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], full[name], rtol=0.1, atol=0.05)


def test_it_learns_the_masks_of_a_batch():
    torch.manual_seed(0)
    head, sample = make_head(32, num_levels=2), two()
    feats, frames = make_feats([(16, 24), (8, 12)], 32), frames_of((64, 96))
    vectors, persons = torch.randn(1, 2, 32), torch.tensor([[1, 2]])
    bboxes = sample.gt_instances.bboxes[None]
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(60):
        losses = loss_of(head, feats, vectors, bboxes, persons, [sample], frames)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    found = InstanceData(bboxes=bboxes[0] / torch.tensor([96, 64, 96, 64]))
    found.queries = torch.arange(2)
    seen = DecoderOutput([], Queries(vectors, None), None)
    (found,) = head.finish(Batch(feats, [sample], frames), seen, [found])
    masks, truth = found.masks, sample.gt_instances.masks
    overlap = (masks & truth).sum(dim=(1, 2)) / (masks | truth).sum(dim=(1, 2))
    assert (overlap > 0.8).all(), overlap


def test_images_have_masks_as_mmdet_has_them():
    sample = two()
    masks = sample.gt_instances.masks
    hosted = copy.deepcopy(sample)
    hosted.gt_instances.masks = BitmapMasks(masks.numpy().astype('uint8'), 64, 96)
    model = detector()
    losses, expected = losses_of(model, hosted), losses_of(model, sample)
    assert losses['loss_mask'] == expected['loss_mask']


def test_levels_and_truth_that_do_not_fit():
    with pytest.raises(UserError, match='num_levels=5'):
        detector(num_levels=5).check_feats(make_feats([(4, 6)] * 4), (64, 96))
    bare, other = data_sample([(5, 5, 9, 9)], [(1,)]), two()
    other.gt_instances.masks = other.gt_instances.masks[:, :40]
    for sample in (bare, other):
        with pytest.raises(UserError, match='masks'):
            losses_of(detector(), sample)
