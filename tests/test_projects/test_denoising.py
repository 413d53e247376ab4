import pytest
import tiny_tubelets as tubelets
import torch
from tiny import (
    NUM_CLASSES,
    batch,
    build_detector,
    data_sample,
    tiny_detector,
    whole_frames,
)

from stmixer_mm.models.boxes import xyzr_to_xyxy
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.decoder.query_decoder import join_blocked
from stmixer_mm.models.parts import Batch
from stmixer_mm.projects.denoising.denoising_queries import noise_actions, noise_boxes
from stmixer_mm.registry import MODELS

TWO = data_sample([(5, 5, 40, 60), (50, 10, 90, 50)], [(1,), (2, 3)])
ONE = data_sample([(20, 10, 60, 64)], [(3,)], name='one,0001')
NONE = data_sample(name='empty,0001')
SHAPES = torch.tensor([[64, 96]])


def make_denoising(**settings):
    torch.manual_seed(0)
    denoising = MODELS.build(
        dict(
            type='DenoisingQueries',
            embed_dims=16,
            num_queries=5,
            num_classes=NUM_CLASSES,
            **settings,
        )
    )
    denoising.init_weights()
    return denoising


def noised(*samples, **settings):
    denoising = make_denoising(**settings)
    return denoising, denoising.enter_training(of_samples(*samples))


def of_samples(*samples):
    frames = FrameShapes(SHAPES.expand(len(samples), 2), (64, 96))
    return Batch([], samples, frames)


def detector(**settings):
    """The same weights, with and without denoising."""
    plain = build_detector()
    config = dict(type='DenoisingQueries', num_groups=3, **settings)
    model = MODELS.build(dict(**tiny_detector(), denoising=config))
    model.init_weights()
    model.load_state_dict(plain.state_dict(), strict=False)
    return plain, model


def losses_of(model, *samples):
    data = model.data_preprocessor(batch(*samples), training=True)
    return model(**data, mode='loss')


def test_without_noise_the_boxes_are_the_true_ones():
    _, extra = noised(TWO, ONE, num_groups=2, box_noise=0, label_noise=0)
    assert extra.persons.tolist() == [[1, 2, 1, 2], [1, -1, 1, -1]]
    bboxes = xyzr_to_xyxy(extra.boxes_xyzr)
    torch.testing.assert_close(bboxes[0], TWO.gt_instances.bboxes.repeat(2, 1))
    torch.testing.assert_close(bboxes[1, ::2], ONE.gt_instances.bboxes.repeat(2, 1))


def test_content_follows_the_actions():
    """Both query sets are normalised, and equal where the actions are."""
    same = data_sample([(0, 0, 9, 9)] * 3, [(1, 2), (3,), (1, 2)])
    denoising, extra = noised(same, num_groups=2, label_noise=0)
    for queries, embedding in zip(
        extra.queries,
        (denoising.spatial_labels, denoising.temporal_labels),
        strict=True,
    ):
        assert queries.shape == (1, 6, 16)
        assert torch.equal(queries[0, 0], queries[0, 2])
        assert torch.equal(queries[0, :3], queries[0, 3:])
        assert not torch.allclose(queries[0, 0], queries[0, 1])
        expected = embedding(torch.tensor([1.0, 1, 0]))
        expected = (expected - expected.mean()) / expected.std(correction=0)
        torch.testing.assert_close(queries[0, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('box_noise', [0.1, 0.4, 0.99])
def test_noise_stays_within_its_bounds(box_noise):
    torch.manual_seed(0)
    bboxes = torch.tensor([10.0, 20, 50, 100]).expand(5000, 4)
    top_left, bottom_right = noise_boxes(bboxes, box_noise).split(2, dim=-1)
    true_size = torch.tensor([40.0, 80])
    shift = ((top_left + bottom_right) / 2 - torch.tensor([30.0, 60])) / true_size
    scale = (bottom_right - top_left) / true_size
    assert shift.abs().max() <= box_noise / 2 + 1e-5
    assert (scale - 1).abs().max() <= box_noise + 1e-5
    assert scale.min() > 0
    # All of the range is used, and both sides alike.
    assert shift.abs().max() > 0.95 * box_noise / 2
    assert (scale - 1).abs().max() > 0.95 * box_noise
    assert shift.mean().abs() < 0.05 * box_noise


@pytest.mark.parametrize('label_noise', [0.0, 0.25, 1.0])
def test_actions_are_replaced_with_the_probability(label_noise):
    torch.manual_seed(0)
    actions = torch.zeros(1, 20000, 5)
    actions[..., 2] = 1
    ours = noise_actions(actions, label_noise)
    assert ((ours == 0) | (ours == 1)).all()
    assert (ours.sum(dim=-1) == 1).all()
    # One in five replacements is the action itself.
    changed = 1 - ours[..., 2].mean().item()
    assert changed == pytest.approx(0.8 * label_noise, abs=0.01)
    if label_noise:
        others = ours[..., [0, 1, 3, 4]].mean(dim=(0, 1))
        assert others.tolist() == pytest.approx([label_noise / 5] * 4, abs=0.01)


def test_who_sees_whom():
    """Two own queries, then two groups of two."""
    _, extra = noised(TWO, num_groups=2)
    assert join_blocked(2, [extra]).int().tolist() == [
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
    ]


def test_groups_do_not_see_each_other():
    """What one group says does not depend on what another starts from."""
    plain, model = detector()
    data = model.data_preprocessor(batch(TWO), training=True)
    feats = model.extract_feat(data['inputs'])
    torch.manual_seed(0)
    extra = model.denoising.enter_training(of_samples(TWO))
    extra.boxes_xyzr[:, :2] = torch.tensor([30.0, 30, 4, 0])
    outputs, changed = [], []
    with torch.no_grad():
        for found in (outputs, changed):
            boxes_xyzr = whole_frames(plain.decoder, SHAPES)
            found += plain.decoder(feats, boxes_xyzr, (64, 96), [extra]).stages
            extra.boxes_xyzr[:, :2] = torch.tensor([70.0, 40, 5, 0.5])
    others = [*range(5), 7, 8, 9, 10]
    for before, after in zip(outputs, changed, strict=True):
        for ours, expected in zip(before, after, strict=True):
            torch.testing.assert_close(ours[:, others], expected[:, others])
            assert not torch.allclose(ours[:, 5:7], expected[:, 5:7])


@pytest.mark.parametrize('samples', [(TWO,), (TWO, NONE), (TWO, ONE), (NONE,)])
def test_own_losses_are_those_without_denoising(samples):
    plain, model = detector()
    expected = losses_of(plain, *samples)
    losses = losses_of(model, *samples)
    own = {name: value for name, value in losses.items() if 'dn.' not in name}
    assert list(own) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(own[name], value, rtol=1e-4, atol=1e-5)
    assert sorted(set(losses) - set(own)) == sorted(
        name.replace('loss_', 'dn.loss_') for name in own
    )


@pytest.mark.parametrize('samples', [(TWO, NONE), (NONE, NONE)])
@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_the_gradient_reaches_every_parameter(samples, dtype):
    _, model = detector()
    with torch.autocast('cpu', dtype=dtype or torch.bfloat16, enabled=bool(dtype)):
        losses = losses_of(model, *samples)
    noised_terms = {n: value for n, value in losses.items() if 'dn.' in n}
    total, logged = model.parse_losses(losses)
    total.backward()
    assert all(logged[name] == value for name, value in noised_terms.items())
    torch.testing.assert_close(total, sum(losses.values()))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    learns = model.denoising.spatial_labels.weight.grad.any()
    if samples == (NONE, NONE):
        assert all(value == 0 for value in noised_terms.values())
    else:
        assert learns and all(value > 0 for value in noised_terms.values())


# ----------------------------------------------------------------------- tubelets


def tubelet_detector(**settings):
    """The same weights, with and without denoising."""
    plain = build_detector(tubelets.tube_detector())
    denoising = dict(type='DenoisingTubelets', num_groups=2, **settings)
    model = build_detector(tubelets.tube_detector() | dict(denoising=denoising))
    model.load_state_dict(plain.state_dict(), strict=False)
    return plain, model


def test_without_noise_tubelets_start_where_the_person_is():
    """Where it is not, from the nearest frame; two frames of the maps stand for four."""
    _, model = tubelet_detector(box_noise=0, label_noise=0)
    sample = tubelets.tube_sample((1, 0, 0, 1), tubelets.SPARSE)
    extra = model.denoising.enter_training(of_samples(sample))
    assert extra.persons.tolist() == [[1, 2, 1, 2]]
    truth = sample.gt_instances.bboxes
    copies = xyzr_to_xyxy(extra.boxes_xyzr)[0]
    torch.testing.assert_close(copies[0], truth[0, [0, 0, 3, 3]])
    torch.testing.assert_close(copies[3], truth[1, [1, 1, 1, 1]])

    queries, boxes_xyzr, *_ = model.decoder.fold(extra)
    folded = xyzr_to_xyxy(boxes_xyzr).view(2, 4, 4)
    torch.testing.assert_close(folded[:, 0], truth[0, [0, 3]])
    assert torch.equal(queries.spatial[0], queries.spatial[1])
    assert torch.equal(queries.spatial[:1], extra.queries.spatial)
    assert torch.equal(queries.temporal, extra.queries.temporal)


def test_a_copy_starts_from_all_that_its_person_does():
    _, model = tubelet_detector(box_noise=0, label_noise=0)
    sample = tubelets.tube_sample((1, 0, 0, 1), actions=((1, 3),))
    of_clip = model.denoising.enter_training(of_samples(sample)).queries
    by_frame = tubelets.in_each_frame(sample)
    labels = by_frame.gt_instances.labels
    labels[:, 0, 3] = labels[:, 3, 1] = 0
    labels[:, 1, 2] = 1  # of nobody
    in_frames = model.denoising.enter_training(of_samples(by_frame)).queries
    assert torch.equal(in_frames.spatial, of_clip.spatial)


@pytest.mark.parametrize('by_frame', [False, True])
def test_own_losses_of_tubelets_are_those_without_denoising(by_frame):
    pair = tubelet_detector()
    samples = [
        tubelets.tube_sample(tubelets.LEAVES, tubelets.SPARSE, tubelets.ALWAYS),
        tubelets.tube_sample(),
        tubelets.tube_sample(tubelets.ALWAYS, seed=1),
    ]
    for model in pair:
        for stage in model.decoder.stages:
            stage.frame_actions = by_frame
    if by_frame:
        samples = [tubelets.in_each_frame(sample) for sample in samples]
    expected, losses = (tubelets.losses_of(model, *samples) for model in pair)
    assert list(losses)[: len(expected)] == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5)
        noised_loss = losses[name.replace('loss_', 'dn.loss_')]
        assert noised_loss.isfinite() and noised_loss > 0
    sum(losses.values()).backward()
    for name, parameter in pair[1].named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert pair[1].denoising.spatial_labels.weight.grad.any()
