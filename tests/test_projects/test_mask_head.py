import copy
import math

import numpy as np
import pytest
import test_tubelets as tubes
import torch
from mmdet.models.losses import FocalLoss
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from tiny import (
    batch,
    build_detector,
    data_sample,
    tiny_decoder,
    tiny_deformable_decoder,
    tiny_detector,
)

from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.projects.masks.mask_head import MaskQueries, how_far_outside, resize
from stmixer_mm.projects.still_images.still_image import pick_detections
from stmixer_mm.registry import MODELS

MASK_HEAD = dict(
    type='QueryMaskHead',
    loss_mask=dict(type='mmdet.FocalLoss', use_sigmoid=True, loss_weight=20.0),
    loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0),
)


def make_head(embed_dims=16, **settings):
    torch.manual_seed(0)
    head = MODELS.build(dict(MASK_HEAD, embed_dims=embed_dims, **settings))
    head.init_weights()
    return head


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


def detector(decoder=None, **settings):
    config = dict(tiny_detector(decoder), mask_head={**MASK_HEAD, **settings})
    return build_detector(config)


def losses_of(model, *samples):
    data = batch(*map(copy.deepcopy, samples))
    return model(**model.train().data_preprocessor(data, training=True), mode='loss')


@pytest.mark.parametrize(
    'sizes',
    [
        [(200, 301), (100, 151), (50, 76), (25, 38)],
        [(200, 301), (100, 151), (50, 76), (50, 76)],
    ],
    ids=['resnet18', 'resnet50 without the last stride'],
)
def test_shapes_are_those_of_the_seed(sizes):
    """264 -> 128 -> 64 -> 32 -> 16 -> 1, each at the next finer level's size."""
    head, seen = make_head(256), []
    for conv in (*head.convs, head.mask):
        conv.register_forward_hook(
            lambda _, given, made: seen.append((given[0].shape[1:], made.shape[1:]))
        )
    feats, queries = make_feats(sizes, 256, frames=1), make_queries([0, 0], 256)
    with torch.no_grad():
        attention = head.attend(
            feats[-1][:, :, 0], queries, frames_of((800, 1201), pad_shape=(800, 1204))
        )
        logits = head(feats, queries, frames_of((800, 1201), pad_shape=(800, 1204)))
    assert attention.shape == (2, 8, *sizes[-1])
    widths, places = [264, 128, 64, 32, 16, 1], [*sizes[::-1], sizes[0]]
    assert seen == [
        ((before, *size), (after, *size))
        for before, after, size in zip(widths, widths[1:], places, strict=False)
    ]
    assert logits.shape == (2, *sizes[0])


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


def test_nothing_is_outside_of_a_box_that_holds_it():
    points = torch.tensor([[[5.0, 5.0], [0.0, 30.0]]])
    bboxes = torch.tensor([[0.0, 0, 10, 10], [2, 2, 2, 2]])
    # One height above 10 is 20; a box without area counts as one pixel.
    assert how_far_outside(points, bboxes).tolist() == [[[0, 2]], [[6, 30]]]


def test_the_level_is_that_of_the_keyframe():
    """With any number of frames the one that holds entry K // 2 of the clip."""
    head = make_head()
    sizes, queries = [(16, 24), (8, 12), (4, 6), (2, 3)], make_queries([0])
    feats = make_feats(sizes, frames=4)
    expected = head([feat[:, :, 2:3] for feat in feats], queries, frames_of((64, 96)))
    for feat in feats:
        feat[:, :, [0, 1, 3]] = 9
    assert torch.equal(head(feats, queries, frames_of((64, 96))), expected)
    for clip_len, frames in ((32, 4), (8, 4), (16, 8), (4, 4), (5, 1)):
        assert (clip_len // 2) * frames // clip_len == frames // 2


@pytest.mark.parametrize(
    'decoder', [tiny_decoder(), tiny_deformable_decoder()], ids=lambda d: d['type']
)
def test_every_parameter_learns_and_the_other_terms_stay(decoder):
    model, plain = detector(decoder), build_detector(tiny_detector(decoder))
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
    losses = head.loss(feats, vectors, bboxes, persons, samples, frames)
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
    both = head.loss(feats, vectors, bboxes, torch.tensor([[1, 2]]), [partly], frames)
    one = head.loss(feats, vectors, bboxes, torch.tensor([[1, 0]]), [known], frames)
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
        losses = head.loss(feats, vectors, bboxes, persons, [sample], frames)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    found = InstanceData(bboxes=bboxes[0] / torch.tensor([96, 64, 96, 64]))
    found.query_vectors = vectors[0]
    (masks,) = head.predict(feats, [found], [sample], frames)
    truth = sample.gt_instances.masks
    overlap = (masks & truth).sum(dim=(1, 2)) / (masks | truth).sum(dim=(1, 2))
    assert (overlap > 0.8).all(), overlap


def test_other_losses_of_mmdet_fit():
    head = make_head(
        num_levels=1,
        loss_mask=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
        loss_dice=dict(type='mmdet.DiceLoss', loss_weight=5.0),
    )
    losses = head.loss(
        make_feats([(16, 24)]),
        torch.randn(1, 2, 16),
        torch.tensor([[[1.0, 1, 9, 9]] * 2]),
        torch.tensor([[1, 2]]),
        [two()],
        frames_of((64, 96)),
    )
    assert all(value.isfinite() and value > 0 for value in losses.values())
    assert not isinstance(head.loss_mask, FocalLoss)


def test_images_have_masks_as_mmdet_has_them():
    sample = two()
    masks = sample.gt_instances.masks
    hosted = copy.deepcopy(sample)
    hosted.gt_instances.masks = BitmapMasks(masks.numpy().astype('uint8'), 64, 96)
    model = detector()
    losses, expected = losses_of(model, hosted), losses_of(model, sample)
    assert losses['loss_mask'] == expected['loss_mask']
    predictions = InstanceData(
        bboxes=torch.rand(2, 4),
        scores=torch.tensor([[0, 0.1, 0.9], [0, 0.8, 0.2]]),
        masks=masks,
    )
    found = pick_detections(predictions, dict(img_shape=(64, 96)), 3)
    assert torch.equal(found.masks, masks[[0, 1, 1]])


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(num_levels=0), 'num_levels=0 from 1 to 5'),
        (dict(num_levels=6), 'num_levels=6 from 1 to 5'),
        (dict(num_heads=0), 'num_heads=0'),
        (dict(chunk_size=0), 'chunk_size=0 of 1 or more'),
        (dict(num_heads=3), 'multiple of 16 and of num_heads=3'),
        (dict(embed_dims=24), 'embed_dims=24, which must be a multiple of 16'),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(UserError, match=words):
        make_head(**settings)


def test_what_does_not_fit():
    model = detector(num_levels=5)
    feats = make_feats([(16, 24), (8, 12), (4, 6), (2, 3)])
    with pytest.raises(
        UserError, match='reads num_levels=5 levels but the neck yields 4'
    ):
        model.check_feats(feats, (64, 96))
    bare, other = data_sample([(5, 5, 9, 9)], [(1,)]), two()
    other.gt_instances.masks = other.gt_instances.masks[:, :40]
    model = detector()
    with pytest.raises(UserError, match="'video,0001' has no masks, which"):
        losses_of(model, bare)
    with pytest.raises(UserError, match='are 96x40 pixels but its frame is 96x64'):
        losses_of(model, other)
    tubelets = {**tubes.tube_detector(), 'mask_head': MASK_HEAD}
    with pytest.raises(UserError, match='QueryMaskHead goes with decoders of a StageO'):
        MODELS.build(tubelets)


def test_tracks_have_masks_too():
    """Those of learned queries and of tracks, learnt and drawn as of one keyframe."""
    config = tiny_detector() | dict(
        mask_head=MASK_HEAD, query_interaction=dict(type='QueryInteraction')
    )
    model = build_detector(config).eval()
    model.head.score_thr = model.query_interaction.birth_score = 0.0
    sample = data_sample()
    sample.tracks = model.query_interaction.start()
    counts = []
    for _ in range(2):
        (sample,) = model.test_step(batch(sample))
        found = sample.pred_instances
        assert found.masks.shape == (len(found.bboxes), 64, 96)
        assert 'query_vectors' not in found
        counts.append(len(found.bboxes))
    assert counts[0] > 0

    samples = [two(), two()]
    for place, one in enumerate(samples):
        one.entity_ids = np.arange(2)
        one.set_metainfo(dict(video_id='a', timestamp=place, sequence_place=place))
    data = [batch(one) for one in samples]
    data = {name: [one[name] for one in data] for name in data[0]}
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    assert losses['loss_mask'] > 0
    sum(losses.values()).backward()
    for part in (model.mask_head, model.query_interaction):
        assert all(each.grad is not None for each in part.parameters())
