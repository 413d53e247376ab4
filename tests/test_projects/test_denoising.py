"""Laws of noised persons as further queries."""

import pytest
import tiny_tubelets as tubelets
import torch
from tiny import (
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
from torch.testing import assert_close

from stmixer_mm.engine.checkpoints import check_state
from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import xyzr_to_xyxy
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.parts import Batch
from stmixer_mm.projects.denoising.denoising_queries import noise_actions, noise_boxes


def one():
    return data_sample([(20, 10, 60, 64)], [(3,)], name='one,0001')


def noised(model, *samples):
    """Queries that the detector adds in training."""
    frames = FrameShapes(torch.tensor([(64, 96)] * len(samples)), (64, 96))
    return model.denoising.enter_training(Batch([], samples, frames))


def detectors(config=None, **settings):
    """Two of the same weights, without and with denoising."""
    denoising = dict(type='DenoisingQueries', num_groups=2) | settings
    plain = build_detector(config)
    model = build_detector(dict(config or tiny_detector(), denoising=denoising))
    model.load_state_dict(plain.state_dict(), strict=False)
    return plain, model


NO_NOISE = dict(box_noise=0, label_noise=0)
OF_TUBELETS = dict(type='DenoisingTubelets', config=tubelets.tube_detector())


def test_without_noise_copies_are_at_the_persons_and_follow_their_actions():
    _, model = detectors(**NO_NOISE)
    four = data_sample([(0, 0, 9, 9), (5, 5, 60, 60)] * 2, [(1, 2), (3,), (1, 2), ()])
    extra = noised(model, four, one())
    assert extra.persons.tolist() == [[1, 2, 3, 4] * 2, [1, -1, -1, -1] * 2]
    copies = xyzr_to_xyxy(extra.boxes_xyzr)
    assert_close(copies[0], four.gt_instances.bboxes.repeat(2, 1))
    assert_close(copies[1, ::4], one().gt_instances.bboxes.repeat(2, 1))
    for queries, name in zip(extra.queries, ('spatial', 'temporal'), strict=True):
        assert torch.equal(queries[0, 0], queries[0, 2])
        assert torch.equal(queries[0, :4], queries[0, 4:])
        embedding = getattr(model.denoising, f'{name}_labels')
        expected = embedding(torch.tensor([1.0, 1, 0]))
        expected = (expected - expected.mean()) / expected.std(correction=0)
        assert_close(queries[0, 0], expected, rtol=1e-3, atol=1e-3)


def test_noise_fills_its_bounds():
    bboxes = torch.tensor([10.0, 20, 50, 100]).expand(5000, 4)
    top_left, bottom_right = noise_boxes(bboxes, 0.99).split(2, dim=-1)
    true_size = torch.tensor([40.0, 80])
    shift = ((top_left + bottom_right) / 2 - torch.tensor([30.0, 60])) / true_size
    scale = (bottom_right - top_left) / true_size
    assert 0.47 < shift.abs().max() <= 0.495 + 1e-5
    assert 0.94 < (scale - 1).abs().max() <= 0.99 + 1e-5
    assert scale.min() > 0 and shift.mean().abs() < 0.05


def test_actions_are_replaced_with_the_probability():
    ours = noise_actions(torch.eye(5)[2].expand(1, 20000, 5), 0.25)
    assert ((ours == 0) | (ours == 1)).all() and (ours.sum(dim=-1) == 1).all()
    # One in five replacements is the action itself.
    expected = torch.tensor([0.05, 0.05, 0.8, 0.05, 0.05])
    assert_close(ours.mean(dim=(0, 1)), expected, rtol=0, atol=0.01)


def test_groups_do_not_see_each_other():
    """Neither the decoder's own queries nor a group depend on another group."""
    plain, model = detectors()
    data = model.data_preprocessor(batch(two()), training=True)
    feats = model.extract_feat(data['inputs'])
    extra, outputs = noised(model, two()), []
    with torch.no_grad():
        for box in ([30.0, 30, 4, 0], [70.0, 40, 5, 0.5]):
            extra.boxes_xyzr[:, :2] = torch.tensor(box)
            boxes_xyzr = whole_frames(plain.decoder, [(64, 96)])
            outputs.append(plain.decoder(feats, boxes_xyzr, (64, 96), [extra]).stages)
    unaffected = [*range(5), 7, 8]
    for first, second in zip(*outputs, strict=True):
        for ours, expected in zip(first, second, strict=True):
            assert_close(ours[:, unaffected], expected[:, unaffected])
            assert not torch.allclose(ours[:, 5:7], expected[:, 5:7])


def test_without_noise_tubelets_start_where_the_person_is():
    """In frames without it, from the nearest one; two frames of the maps stand for four."""
    _, model = detectors(**OF_TUBELETS, **NO_NOISE)
    sample = tubelets.tube_sample((1, 0, 0, 1), tubelets.SPARSE, actions=((1, 3), (2,)))
    extra = noised(model, sample)
    assert extra.persons.tolist() == [[1, 2, 1, 2]]
    truth = sample.gt_instances.bboxes
    copies = xyzr_to_xyxy(extra.boxes_xyzr)[0]
    assert_close(copies[0], truth[0, [0, 0, 3, 3]])
    assert_close(copies[3], truth[1, [1, 1, 1, 1]])
    queries, boxes_xyzr, *_ = model.decoder.fold(extra)
    folded = xyzr_to_xyxy(boxes_xyzr).view(2, 4, 4)
    assert_close(folded[:, 0], truth[0, [0, 3]])
    for frame in queries.spatial:
        assert torch.equal(frame, extra.queries.spatial[0])
    assert torch.equal(queries.temporal, extra.queries.temporal)
    # A copy does all that its person does in any frame, and only that.
    by_frame = tubelets.in_each_frame(sample)
    labels = by_frame.gt_instances.labels
    labels[0, 0, 3] = labels[0, 3, 1] = 0
    labels[0, 1, 2] = 1  # where the person is not
    assert torch.equal(noised(model, by_frame).queries.spatial, extra.queries.spatial)


def assert_own_losses_stay(losses, expected, noised_are_positive=True):
    assert list(losses)[: len(expected)] == list(expected)
    for name, value in expected.items():
        assert_close(losses[name], value, rtol=1e-4, atol=1e-5)
        of_noised = losses[name.replace('loss_', 'dn.loss_')]
        assert of_noised.isfinite() and (of_noised > 0) == noised_are_positive
    assert len(losses) == 2 * len(expected)


@pytest.mark.parametrize(
    'samples, in_bfloat16',
    [((two, one), False), ((two, nobody), True), ((nobody, nobody), True)],
)
def test_own_losses_are_those_without_denoising(samples, in_bfloat16):
    models = detectors()
    with torch.autocast('cpu', torch.bfloat16, enabled=in_bfloat16):
        expected, losses = (losses_of(m, *(make() for make in samples)) for m in models)
    somebody = samples != (nobody, nobody)
    assert_own_losses_stay(losses, expected, somebody)
    sum(losses.values()).backward()
    assert_all_learn(models[1])
    assert models[1].denoising.spatial_labels.weight.grad.any() == somebody


def test_weights_of_denoising_are_left_over_where_it_is_off():
    plain, model = detectors()
    without = build_detector(tiny_detector() | dict(denoising=None))
    check_state(without, model.state_dict(), source='x')
    with pytest.raises(UserError, match='denoising'):
        check_state(plain, model.state_dict(), source='x')


@pytest.mark.parametrize('by_frame', [False, True])
def test_own_losses_of_tubelets_are_those_without_denoising(by_frame):
    models = detectors(**OF_TUBELETS)
    states = (tubelets.LEAVES, tubelets.SPARSE, tubelets.ALWAYS), (), (tubelets.ALWAYS,)
    samples = [tubelets.tube_sample(*persons, seed=len(persons)) for persons in states]
    for model in models:
        for stage in model.decoder.stages:
            stage.frame_actions = by_frame
    if by_frame:
        samples = [tubelets.in_each_frame(sample) for sample in samples]
    expected, losses = (losses_of(model, *samples) for model in models)
    assert_own_losses_stay(losses, expected)
    sum(losses.values()).backward()
    assert_all_learn(models[1])
