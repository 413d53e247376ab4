"""Laws of tubelets: their stage and their head; of the detector: test_stmixer.py."""

from functools import partial

import pytest
import tiny_decoder as decoders
import torch
from mmengine.structures import InstanceData
from tiny import NUM_CLASSES, data_sample, tiny_head
from tiny_tubelets import (
    ALWAYS,
    LEAVES,
    SETTINGS,
    SOFTMAX,
    SPARSE,
    in_each_frame,
    tube_sample,
)
from torch import nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.heads.targets import BACKGROUND, PERSON
from stmixer_mm.projects.tubelets.tubelet_head import at_clip_frames
from stmixer_mm.registry import MODELS, TASK_UTILS
from stmixer_mm.structures import StageOutput, TubeletStageOutput

COST = SETTINGS.tubelet_head.assigner.match_costs[0].to_dict()
each_labelling = pytest.mark.parametrize(
    'settings', [{}, SOFTMAX], ids=['labels', 'label']
)

# ------------------------------------------------------------------- the stage


def make_decoder(**settings):
    return decoders.make_decoder(**decoders.TUBELETS, **settings)


def run(decoder, feats):
    """Outputs of the last stage."""
    return TubeletStageOutput(*decoders.run(decoder, feats)[-3:])


def test_one_frame_is_a_keyframe():
    tubelets, keyframe = make_decoder(num_frames=1), decoders.make_decoder(num_frames=1)
    keyframe.load_state_dict(
        {k: v for k, v in tubelets.state_dict().items() if 'over_time' not in k}
    )
    for stage in tubelets.stages:
        stage.over_time = nn.Identity()
    feats = decoders.made_up_feats(keyframe)
    person_logits, action_logits, bboxes = run(tubelets, feats)
    expected = decoders.run(keyframe, feats)[-3:]
    ours = person_logits.squeeze(2), action_logits, bboxes.squeeze(2)
    decoders.assert_all_close(ours, expected, 1e-5)


def test_frames_in_another_order_give_boxes_in_that_order():
    decoder = make_decoder()
    feats = decoders.made_up_feats(decoder)
    original = run(decoder, feats)
    order = [2, 0, 1]
    for stage in decoder.stages:
        stage.over_time.code.data = stage.over_time.code.data[order]
    reordered = run(decoder, [feat[:, :, order] for feat in feats])
    for name in ('person_logits', 'bboxes'):
        ours, expected = getattr(reordered, name), getattr(original, name)[:, :, order]
        decoders.assert_all_close([ours], [expected], 1e-5)
    # What somebody does may depend on the order.
    actions = reordered.action_logits, original.action_logits
    assert not torch.allclose(*actions, atol=1e-3)


# -------------------------------------------------------------------- the head


def make_head(**settings):
    return MODELS.build(tiny_head(**SETTINGS.tubelet_head.to_dict()) | settings)


def random_output(queries=5, frames=4, clips=1):
    """Boxes of positive size within 96x64."""
    top_left = torch.rand(clips, queries, frames, 2) * torch.tensor([60.0, 30])
    size = 5 + torch.rand(clips, queries, frames, 2) * 25
    return TubeletStageOutput(
        torch.randn(clips, queries, frames, 2, requires_grad=True),
        torch.randn(clips, queries, 3, requires_grad=True),
        torch.cat((top_left, top_left + size), dim=-1).requires_grad_(),
    )


def test_frames_of_a_clip_lie_between_those_of_the_maps():
    """Two frames stand for the times 0.5 and 2.5 of four."""
    bboxes = torch.tensor([[0.0, 0, 4, 4], [8, 0, 12, 4]]).view(1, 1, 2, 4)
    output = TubeletStageOutput(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3), bboxes)
    left_sides = at_clip_frames(output, 4).bboxes[0, 0, :, 0]
    assert left_sides.tolist() == [0, 2, 6, 8]
    assert torch.equal(at_clip_frames(output, 2).bboxes, bboxes)


@each_labelling
def test_a_clip_of_one_frame_costs_what_a_keyframe_does(settings):
    output = random_output(frames=1)
    tubes = tube_sample((1,), (1,), clip_len=1, actions=((1,), (2,)))
    keyframe = data_sample(tubes.gt_instances.bboxes[:, 0].tolist(), [(1,), (2,)])
    ours = make_head(**settings).loss([output], [tubes])[0]
    person_logits, action_logits, bboxes = output
    output = StageOutput(person_logits.squeeze(2), action_logits, bboxes.squeeze(2))
    expected = MODELS.build(tiny_head(**settings)).loss([output], [keyframe])[0]
    torch.testing.assert_close(ours, expected)


def test_cost_is_a_mean_over_the_frames_where_it_counts():
    cost = TASK_UTILS.build(COST)
    parts = [*map(TASK_UTILS.build, COST['person_costs'] + COST['box_costs'])]
    output, truth = random_output(), tube_sample(ALWAYS, LEAVES, SPARSE).gt_instances
    queries = InstanceData(scores=output.person_logits[0], bboxes=output.bboxes[0])
    meta = dict(img_shape=(64, 96))
    costs = cost(queries, truth, img_meta=meta)
    assert costs.shape == (5, 3)

    def at(part, person, frame):
        """Costs of all queries in a frame."""
        label = PERSON if truth.states[person, frame] == 1 else BACKGROUND
        scores, bboxes = queries.scores[:, frame], queries.bboxes[:, frame]
        labels, gt_bboxes = torch.tensor([label]), truth.bboxes[[person], frame]
        return part(
            queries=None,
            pred_instances=InstanceData(scores=scores, bboxes=bboxes),
            gt_instances=InstanceData(labels=labels, bboxes=gt_bboxes),
            img_meta=meta,
        )[:, 0]

    frames = [(range(4), range(4)), (range(4), range(2)), ([1], [1])]
    for person, (person_frames, box_frames) in enumerate(frames):
        expected = sum(at(parts[0], person, k) for k in person_frames)
        expected = expected / len(person_frames)
        for part in parts[1:]:
            expected += sum(at(part, person, k) for k in box_frames) / len(box_frames)
        torch.testing.assert_close(costs[:, person], expected)


@each_labelling
def test_each_frame_learns_what_is_known_of_it(settings):
    """And no frame learns anything where nothing is."""
    head = make_head(**settings)
    sample = tube_sample((1, 0, -1, -1), (-1, 1, 1, -1), actions=((1,), (2,)))
    output = random_output()
    targets = head.match([output], [sample], {})[0]['']
    labels, boxed = torch.full((5, 4), -1), torch.zeros(5, 4, dtype=torch.bool)
    labels.view(-1)[targets.person_rows] = targets.persons
    boxed.view(-1)[targets.box_rows] = True
    pairs = boxed.any(dim=1).nonzero().squeeze(1).tolist()
    rows = {tuple(row) for row in boxed[pairs].int().tolist()}
    assert rows == {(1, 0, 0, 0), (0, 1, 1, 0)}
    for query in range(5):
        counted = (labels[query] >= 0).int().tolist()
        if query not in pairs:  # background where anybody's state is known
            assert counted == [1, 1, 1, 0]
            assert BACKGROUND in labels[query] and PERSON not in labels[query]
        else:
            assert counted in ([1, 1, 0, 0], [0, 1, 1, 0])
    assert len(targets.bboxes) == 3
    acting_queries = [*range(5)] if settings else pairs
    assert targets.action_rows.tolist() == acting_queries

    sum(head.loss([output], [sample])[0].values()).backward()
    reached = [values.grad[0].abs().sum(dim=-1) > 0 for values in output]
    assert torch.equal(reached[0], labels >= 0)
    assert reached[1].nonzero().squeeze(1).tolist() == acting_queries
    assert torch.equal(reached[2], boxed)


@each_labelling
def test_actions_of_all_frames_alike_are_those_of_the_clip(settings):
    head, output = make_head(**settings), random_output()
    logits = output.action_logits.unsqueeze(2).expand(-1, -1, 4, -1)
    make = partial(tube_sample, ALWAYS, ALWAYS, actions=((1,), (2,)))
    in_frames = output._replace(action_logits=logits)
    ours, _ = head.loss([in_frames], [in_each_frame(make())])
    torch.testing.assert_close(ours, head.loss([output], [make()])[0])
    predictions = predict(in_frames, score_thr=0.0, **settings)
    once = predict(output, score_thr=0.0, **settings).scores
    assert predictions.scores.shape == (5, 4, NUM_CLASSES)
    torch.testing.assert_close(predictions.scores, once.unsqueeze(1).expand(-1, 4, -1))


def test_boxes_where_there_is_none_may_be_anything():
    sample = tube_sample(LEAVES, SPARSE)
    output = random_output()
    expected = make_head().loss([output], [sample])
    sample.gt_instances.bboxes[sample.gt_instances.states != 1] = torch.nan
    torch.testing.assert_close(make_head().loss([output], [sample]), expected)


def predict(output, clip_len=4, **settings):
    sample = tube_sample(clip_len=clip_len)
    (predictions,) = make_head(**settings).predict([output], [sample])
    return predictions


def test_predictions_are_tubelets_in_all_frames_of_the_clip():
    """The second is there in one frame of four, the third nowhere."""
    is_there = torch.zeros(3, 4)
    is_there[0] = is_there[1, 1] = 1
    logits = 8 * torch.stack([is_there, 1 - is_there], dim=-1)
    output = random_output(queries=3)._replace(person_logits=logits[None])
    predictions = predict(output)
    present = torch.tensor(8.0).sigmoid()
    torch.testing.assert_close(predictions.tubelet_scores, present.expand(2))
    assert torch.equal(predictions.person_scores > 0.5, is_there[:2] > 0)
    scale = torch.tensor([96.0, 64, 96, 64])
    torch.testing.assert_close(predictions.bboxes * scale, output.bboxes[0, :2])
    assert predictions.scores.shape == (2, NUM_CLASSES)
    assert not predictions.scores[:, 0].any()

    assert predict(output, clip_len=8).bboxes.shape == (2, 8, 4)
    nothing = predict(output._replace(person_logits=logits[None, [2] * 3]))
    assert nothing.bboxes.shape == (0, 4, 4) and len(nothing.tubelet_scores) == 0


def test_truth_of_another_kind():
    """Keyframes and tubelets, several actions and one."""
    person, tube = data_sample([(0, 0, 9, 9)], [(1,)]), tube_sample(ALWAYS)
    tube.gt_instances.labels[:, 1:] = 1
    heads = make_head(), MODELS.build(tiny_head()), make_head(**SOFTMAX)
    for head, sample in zip(heads, (person, tube, tube), strict=True):
        with pytest.raises(UserError):
            head.check_truth([sample])
