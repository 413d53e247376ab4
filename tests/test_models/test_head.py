import pytest
import torch
from tiny import data_sample, tiny_head

from stmixer_mm.models.decoder import StageOutput
from stmixer_mm.models.head import BACKGROUND, PERSON
from stmixer_mm.registry import MODELS

SURE, UNSURE = [4.0, -4.0], [-4.0, 4.0]  # person logits


def make_head(**settings):
    return MODELS.build(tiny_head(**settings))


def stage_output(person_logits, bboxes, action_logits=None):
    """One clip; a row per query."""
    actions = action_logits or [[0.0, 0.0, 0.0]] * len(bboxes)
    values = [torch.tensor([v], requires_grad=True) for v in (person_logits, actions)]
    boxes = torch.tensor([bboxes], dtype=torch.float32, requires_grad=True)
    return StageOutput(*values, boxes)


def test_literal_matching():
    output = stage_output(
        [SURE, UNSURE, SURE], [(0, 0, 10, 10), (50, 10, 90, 50), (5, 5, 41, 60)]
    )
    truth = data_sample([(5, 5, 40, 60), (50, 10, 90, 50)], [(1,), (2, 3)])
    targets = make_head().get_targets(output, [truth])
    assert targets.person_labels.tolist() == [[BACKGROUND, PERSON, PERSON]]
    assert targets.bboxes.tolist() == [[50, 10, 90, 50], [5, 5, 40, 60]]
    assert targets.actions.tolist() == [[0, 1, 1], [1, 0, 0]]  # dummy column gone
    assert targets.box_scale.tolist() == [[96, 64, 96, 64]] * 2


def test_more_persons_than_queries():
    output = stage_output([SURE], [(0, 0, 10, 10)])
    truth = data_sample([(0, 0, 9, 9), (50, 10, 90, 50)], [(1,), (2,)])
    targets = make_head().get_targets(output, [truth])
    assert targets.bboxes.tolist() == [[0, 0, 9, 9]]


def test_literal_losses():
    output = stage_output([[0.0, 0.0], [0.0, 0.0]], [(0, 0, 48, 32), (90, 60, 92, 62)])
    truth = data_sample([(0, 0, 96, 64)], [(1,)])
    losses = make_head().loss([output], [truth])
    log2 = torch.tensor(2.0).log()
    torch.testing.assert_close(losses['loss_person'], 2 * log2)
    torch.testing.assert_close(losses['loss_bbox'], torch.tensor(2 * (0.5 + 0.5)))
    torch.testing.assert_close(losses['loss_iou'], torch.tensor(2 * 0.75))
    torch.testing.assert_close(losses['loss_action'], 24 * log2)


def test_person_loss_weighs_background_by_a_tenth():
    output = stage_output([SURE, [1.0, 0.0]], [(0, 0, 96, 64), (1, 1, 2, 2)])
    truth = data_sample([(0, 0, 96, 64)], [(1,)])
    loss = make_head().loss([output], [truth])['loss_person']
    expected = torch.nn.functional.cross_entropy(
        output.person_logits[0],
        torch.tensor([PERSON, BACKGROUND]),
        weight=torch.tensor([1, 0.1]),
    )
    torch.testing.assert_close(loss, 2 * expected)


def test_earlier_stages_are_prefixed():
    outputs = [stage_output([SURE], [(0, 0, 10, 10)]) for _ in range(3)]
    losses = make_head().loss(outputs, [data_sample([(0, 0, 9, 9)], [(1,)])])
    terms = ['loss_person', 'loss_bbox', 'loss_iou', 'loss_action']
    prefixes = ['d0.', 'd1.', '']
    assert sorted(losses) == sorted(p + term for p in prefixes for term in terms)


def test_without_persons_losses_are_zero_with_a_gradient():
    output = stage_output([SURE, SURE], [(0, 0, 10, 10), (1, 1, 5, 5)])
    losses = make_head().loss([output], [data_sample()])
    for name in ('loss_bbox', 'loss_iou', 'loss_action'):
        assert losses[name] == 0
    sum(losses.values()).backward()
    assert all(values.grad is not None for values in output)
    assert losses['loss_person'] > 0


def test_host_action_loss_fits():
    """mmaction's own multi-label loss gives the same as mmdet's."""
    output = stage_output([SURE], [(0, 0, 10, 10)], [[1.0, -2.0, 0.5]])
    truth = data_sample([(0, 0, 9, 9)], [(1, 3)])
    host = make_head(loss_action=dict(type='BCELossWithLogits', loss_weight=24.0))
    ours = make_head()
    torch.testing.assert_close(
        host.loss([output], [truth])['loss_action'],
        ours.loss([output], [truth])['loss_action'],
    )


def predict(head, output, img_shape=(64, 96)):
    (sample,) = head.predict([output], [data_sample(img_shape=img_shape)])
    return sample.pred_instances


def test_predictions_keep_sure_queries_in_order():
    output = stage_output(
        [UNSURE, SURE, [0.0, 0.0], SURE],
        [(0, 0, 1, 1), (-5, 3, 20, 30), (0, 0, 2, 2), (48, 32, 200, 100)],
        [[0.0, 0.0, 0.0]] * 3 + [[0.0, 20.0, -20.0]],
    )
    predictions = predict(make_head(), output)
    expected = torch.tensor(
        [[0, 3 / 64, 20 / 96, 30 / 64], [0.5, 0.5, 95 / 96, 63 / 64]]
    )[:, [0, 1, 2, 3]]
    torch.testing.assert_close(predictions.bboxes, expected)
    torch.testing.assert_close(
        predictions.scores, torch.tensor([[0, 0.5, 0.5, 0.5], [0, 0.5, 1, 0]])
    )


@pytest.mark.parametrize('topk, kept', [(0, 0), (2, 2), (9, 3)])
def test_fallback_keeps_the_best(topk, kept):
    output = stage_output(
        [UNSURE, [-1.0, 1.0], [-2.0, 2.0]],
        [(0, 0, 9, 9), (0, 0, 48, 32), (0, 0, 8, 8)],
    )
    predictions = predict(make_head(fallback_topk=topk), output)
    assert len(predictions) == kept
    if kept:
        assert predictions.bboxes[0].tolist() == [0, 0, 0.5, 0.5]  # best first


def test_scores_times_person_score():
    output = stage_output([[1.0, 0.0]], [(0, 0, 9, 9)])
    product = predict(make_head(score_mode='product'), output).scores
    person = torch.tensor([1.0, 0.0]).softmax(0)[0]
    torch.testing.assert_close(product[0, 1:], torch.full((3,), 0.5) * person)


def test_threshold_is_inclusive():
    output = stage_output([[0.0, 0.0]], [(0, 0, 9, 9)])
    assert len(predict(make_head(score_thr=0.5), output)) == 1


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(score_thr=1.5), 'score_thr=1.5 is no probability'),
        (dict(fallback_topk=-1), 'fallback_topk=-1 is negative'),
        (dict(score_mode='sum'), "'sum' is unknown; use 'action' or 'product'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        make_head(**settings)


def test_labels_of_another_width():
    truth = data_sample([(0, 0, 9, 9)], [(1,)])
    truth.gt_instances.labels = torch.zeros(1, 81)
    with pytest.raises(
        ValueError, match=r"'video,0001' have 81 columns .*num_classes=4"
    ):
        make_head().loss([stage_output([SURE], [(0, 0, 9, 9)])], [truth])


def test_a_nan_in_the_annotation_names_the_batch():
    truth = data_sample([(0, 0, float('nan'), 9)], [(1,)])
    head = make_head(assigner=dict(
        type='mmdet.HungarianAssigner',
        match_costs=[dict(type='mmdet.ClassificationCost')],
    ))  # fmt: skip
    with pytest.raises(
        FloatingPointError, match=r"loss_bbox.* of the batch 'video,0001'"
    ):
        head.loss([stage_output([SURE], [(0, 0, 9, 9)])], [truth])
