"""Laws of noised persons as further queries."""

import pytest
import tiny_tubelets as tubelets
import torch
from tiny import (
    NUM_CLASSES,
    assert_all_learn,
    batch,
    build_detector,
    data_sample,
    losses_of,
    nobody,
    tiny_detector,
    two,
    whole_frames,
)

import stmixer_mm.projects.denoising  # noqa: F401
from stmixer_mm.models.boxes import xyzr_to_xyxy
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.decoder.query_decoder import join_blocked
from stmixer_mm.models.parts import Batch
from stmixer_mm.projects.denoising.denoising_queries import noise_actions, noise_boxes
from stmixer_mm.registry import MODELS

SHAPES = torch.tensor([[64, 96]])


def one():
    return data_sample([(20, 10, 60, 64)], [(3,)], name='one,0001')


def noised(*samples, **settings):
    torch.manual_seed(0)
    sizes = dict(embed_dims=16, num_queries=5, num_classes=NUM_CLASSES)
    denoising = MODELS.build(dict(type='DenoisingQueries', **sizes, **settings))
    denoising.init_weights()
    return denoising, denoising.enter_training(of_samples(*samples))


def of_samples(*samples):
    frames = FrameShapes(SHAPES.expand(len(samples), 2), (64, 96))
    return Batch([], samples, frames)


def pair(config, denoising):
    """Detectors of the same weights, without and with denoising."""
    plain = build_detector(config)
    model = build_detector(dict(config, denoising=denoising))
    model.load_state_dict(plain.state_dict(), strict=False)
    return plain, model


def detectors():
    return pair(tiny_detector(), dict(type='DenoisingQueries', num_groups=3))


def tubelet_detectors(**settings):
    denoising = dict(type='DenoisingTubelets', num_groups=2, **settings)
    return pair(tubelets.tube_detector(), denoising)


def test_without_noise_the_boxes_are_the_true_ones():
    _, extra = noised(two(), one(), num_groups=2, box_noise=0, label_noise=0)
    assert extra.persons.tolist() == [[1, 2, 1, 2], [1, -1, 1, -1]]
    bboxes = xyzr_to_xyxy(extra.boxes_xyzr)
    torch.testing.assert_close(bboxes[0], two().gt_instances.bboxes.repeat(2, 1))
    torch.testing.assert_close(bboxes[1, ::2], one().gt_instances.bboxes.repeat(2, 1))


def test_content_follows_the_actions():
    """Both query sets are normalised, and equal where the actions are."""
    same = data_sample([(0, 0, 9, 9)] * 3, [(1, 2), (3,), (1, 2)])
    denoising, extra = noised(same, num_groups=2, label_noise=0)
    for queries, embedding in zip(
        extra.queries,
        (denoising.spatial_labels, denoising.temporal_labels),
        strict=True,
    ):
        assert torch.equal(queries[0, 0], queries[0, 2])
        assert torch.equal(queries[0, :3], queries[0, 3:])
        assert not torch.allclose(queries[0, 0], queries[0, 1])
        expected = embedding(torch.tensor([1.0, 1, 0]))
        expected = (expected - expected.mean()) / expected.std(correction=0)
        torch.testing.assert_close(queries[0, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('box_noise', [0.1, 0.99])
def test_noise_fills_its_bounds(box_noise):
    torch.manual_seed(0)
    bboxes = torch.tensor([10.0, 20, 50, 100]).expand(5000, 4)
    top_left, bottom_right = noise_boxes(bboxes, box_noise).split(2, dim=-1)
    true_size = torch.tensor([40.0, 80])
    shift = ((top_left + bottom_right) / 2 - torch.tensor([30.0, 60])) / true_size
    scale = (bottom_right - top_left) / true_size
    assert 0.95 * box_noise / 2 < shift.abs().max() <= box_noise / 2 + 1e-5
    assert 0.95 * box_noise < (scale - 1).abs().max() <= box_noise + 1e-5
    assert scale.min() > 0
    assert shift.mean().abs() < 0.05 * box_noise


@pytest.mark.parametrize('label_noise', [0.0, 0.25, 1.0])
def test_actions_are_replaced_with_the_probability(label_noise):
    torch.manual_seed(0)
    actions = torch.zeros(1, 20000, 5)
    actions[..., 2] = 1
    ours = noise_actions(actions, label_noise)
    assert ((ours == 0) | (ours == 1)).all() and (ours.sum(dim=-1) == 1).all()
    # One in five replacements is the action itself.
    expected = torch.full((5,), label_noise / 5)
    expected[2] += 1 - label_noise
    torch.testing.assert_close(ours.mean(dim=(0, 1)), expected, rtol=0, atol=0.01)


def test_who_sees_whom():
    """Two own queries, then two groups of two."""
    _, extra = noised(two(), num_groups=2)
    assert join_blocked(2, [extra]).int().tolist() == [
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
    ]


def test_groups_do_not_see_each_other():
    """Neither the decoder's own queries nor a group depend on another group."""
    plain, model = detectors()
    data = model.data_preprocessor(batch(two()), training=True)
    feats = model.extract_feat(data['inputs'])
    extra = model.denoising.enter_training(of_samples(two()))
    outputs = []
    with torch.no_grad():
        for box in ([30.0, 30, 4, 0], [70.0, 40, 5, 0.5]):
            extra.boxes_xyzr[:, :2] = torch.tensor(box)
            boxes_xyzr = whole_frames(plain.decoder, SHAPES)
            outputs.append(plain.decoder(feats, boxes_xyzr, (64, 96), [extra]).stages)
    others = [*range(5), 7, 8, 9, 10]
    for before, after in zip(*outputs, strict=True):
        for ours, expected in zip(before, after, strict=True):
            torch.testing.assert_close(ours[:, others], expected[:, others])
            assert not torch.allclose(ours[:, 5:7], expected[:, 5:7])


def assert_own_losses_stay(losses, expected, noised_are_positive=True):
    assert list(losses)[: len(expected)] == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5)
        of_noised = losses[name.replace('loss_', 'dn.loss_')]
        assert of_noised.isfinite() and (of_noised > 0) == noised_are_positive
    assert len(losses) == 2 * len(expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('samples', [(two, one), (two, nobody), (nobody, nobody)])
def test_own_losses_are_those_without_denoising(samples, dtype):
    plain, model = detectors()
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype is torch.bfloat16):
        expected, losses = (
            losses_of(one, *(make() for make in samples)) for one in (plain, model)
        )
    somebody = samples != (nobody, nobody)
    assert_own_losses_stay(losses, expected, somebody)
    sum(losses.values()).backward()
    assert_all_learn(model)
    assert model.denoising.spatial_labels.weight.grad.any() == somebody


def test_without_noise_tubelets_start_where_the_person_is():
    """Where it is not, from the nearest frame; two frames of the maps stand for four."""
    _, model = tubelet_detectors(box_noise=0, label_noise=0)
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
    _, model = tubelet_detectors(box_noise=0, label_noise=0)
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
    models = tubelet_detectors()
    samples = [
        tubelets.tube_sample(tubelets.LEAVES, tubelets.SPARSE, tubelets.ALWAYS),
        tubelets.tube_sample(),
        tubelets.tube_sample(tubelets.ALWAYS, seed=1),
    ]
    for model in models:
        for stage in model.decoder.stages:
            stage.frame_actions = by_frame
    if by_frame:
        samples = [tubelets.in_each_frame(sample) for sample in samples]
    expected, losses = (losses_of(model, *samples) for model in models)
    assert_own_losses_stay(losses, expected)
    sum(losses.values()).backward()
    assert_all_learn(models[1])
