import pytest
import torch
from mmengine.config import Config
from tiny import data_sample, tiny_head

from stmixer_mm.checks.config import check_arguments
from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.stage import StageOutput
from stmixer_mm.models.heads.matching import (
    BACKGROUND,
    PERSON,
    person_margin,
    score_persons,
)
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
    torch.testing.assert_close(losses['loss_action'], 0.3 * 3 * log2)


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
    host = make_head(loss_action=dict(type='BCELossWithLogits', loss_weight=0.3))
    ours = make_head()
    torch.testing.assert_close(
        host.loss([output], [truth])['loss_action'],
        ours.loss([output], [truth])['loss_action'],
    )


def predict(head, output, img_shape=(64, 96)):
    (predictions,) = head.predict([output], [data_sample(img_shape=img_shape)])
    return predictions


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


def test_a_nan_in_the_annotation_names_the_batch():
    truth = data_sample([(0, 0, float('nan'), 9)], [(1,)])
    head = make_head(assigner=dict(
        type='mmdet.HungarianAssigner',
        match_costs=[dict(type='mmdet.ClassificationCost')],
    ))  # fmt: skip
    with pytest.raises(UserError, match=r"loss_bbox.* of 'video,0001' is NaN"):
        head.loss([stage_output([SURE], [(0, 0, 9, 9)])], [truth])


FOCAL = dict(type='mmdet.FocalLoss', loss_weight=2.0)
SIGMOID_CE = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True)
QUALITY_FOCAL = dict(type='mmdet.QualityFocalLoss')
VARIFOCAL = dict(type='mmdet.VarifocalLoss')
HUNGARIAN = dict(type='mmdet.HungarianAssigner')
# Its default iou_calculator is a part of mmdet without a prefix.
MAX_IOU = dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=0.6, neg_iou_thr=0.4)


def random_output(queries=6):
    """One clip; boxes of positive size within 96x64."""
    torch.manual_seed(0)
    top_left = torch.rand(1, queries, 2) * torch.tensor([60.0, 30])
    size = 5 + torch.rand(1, queries, 2) * 25
    boxes = torch.cat((top_left, top_left + size), dim=-1).requires_grad_()
    person_logits = (3 * torch.randn(1, queries, 2)).requires_grad_()
    action_logits = torch.randn(1, queries, 3).requires_grad_()
    return StageOutput(person_logits, action_logits, boxes)


TWO = [(5, 5, 40, 60), (50, 10, 90, 50)]


def two_persons():
    return data_sample(TWO, [(1,), (2, 3)])


def test_matching_sees_the_margin_without_changing_the_softmax():
    """Why the default matches as ever, while sigmoid costs are right too."""
    torch.manual_seed(0)
    logits = 10 * torch.randn(100000, 2)
    margin = person_margin(logits)
    pair = torch.stack((margin, torch.zeros_like(margin)), dim=-1)
    assert torch.equal(pair.softmax(dim=-1), logits.softmax(dim=-1))
    torch.testing.assert_close(margin.sigmoid(), score_persons(logits))


@pytest.mark.parametrize('cost', ['FocalLossCost', 'BinaryFocalLossCost'])
def test_sigmoid_costs_see_the_person_score(cost):
    """Raw logits (5, 6) and (1, -1) would be matched the other way round."""
    output = stage_output([[5.0, 6.0], [1.0, -1.0]], [(0, 0, 9, 9)] * 2)
    head = make_head(
        assigner=dict(**HUNGARIAN, match_costs=[dict(type=f'mmdet.{cost}')])
    )
    targets = head.get_targets(output, [data_sample([(0, 0, 9, 9)], [(1,)])])
    assert targets.acting.tolist() == [[False, True]]


@pytest.mark.parametrize('loss', [FOCAL, SIGMOID_CE], ids=lambda loss: loss['type'])
def test_sigmoid_person_loss_is_the_hosts_on_margins(loss):
    """The host takes class numbers, 0 for a person and 1 for none."""
    output = random_output()
    head = make_head(loss_person=loss)
    targets = head.get_targets(output, [two_persons()])
    logits = output.person_logits[0]
    expected = MODELS.build(loss)(
        logits[:, :1] - logits[:, 1:], targets.person_labels[0], avg_factor=2
    )
    ours = head.loss([output], [two_persons()])['loss_person']
    torch.testing.assert_close(ours, expected)


def test_sigmoid_person_loss_by_hand():
    """Three margins of 0: each costs ln 2; two of the queries are matched."""
    output = stage_output([[1.0, 1.0]] * 3, [*TWO, (0, 0, 5, 5)])
    loss = make_head(loss_person=SIGMOID_CE).loss([output], [two_persons()])
    torch.testing.assert_close(loss['loss_person'], 3 / 2 * torch.tensor(2.0).log())


@pytest.mark.parametrize(
    'loss', [QUALITY_FOCAL, VARIFOCAL], ids=lambda loss: loss['type']
)
@pytest.mark.parametrize('target', ['label', 'iou'])
def test_quality_losses_are_the_hosts(loss, target):
    """The matched query covers half of its person."""
    output = stage_output([[1.0, 0.0], [0.0, 2.0]], [(0, 0, 48, 64), (90, 60, 92, 62)])
    head = make_head(loss_person=loss, person_target=target)
    ours = head.loss([output], [data_sample([(0, 0, 96, 64)], [(1,)])])['loss_person']
    expected = MODELS.build(loss)(
        torch.tensor([[1.0], [-2.0]]),
        torch.tensor([[0.5 if target == 'iou' else 1.0], [0.0]]),
        avg_factor=1,
    )
    torch.testing.assert_close(ours, expected)
    ours.backward()
    assert output.bboxes.grad is None  # the target is no way to move boxes


BOX_LOSSES = [
    *('BalancedL1Loss', 'L1Loss', 'SmoothL1Loss', 'BoundedIoULoss', 'CIoULoss'),
    *('DIoULoss', 'EIoULoss', 'GIoULoss', 'IoULoss', 'SIoULoss'),
]


@pytest.mark.parametrize('name', BOX_LOSSES)
@pytest.mark.parametrize('term', ['loss_bbox', 'loss_iou'])
def test_box_losses_of_mmdet(term, name):
    """Each is zero where queries lie on persons, and pulls them there from nearby."""
    # The host's CIoU divides 0 by 0 at the end, unless eps is of the boxes' scale.
    settings = (
        {'eps': 0.1 if term == 'loss_iou' else 1e-5} if name == 'CIoULoss' else {}
    )
    head = make_head(**{term: dict(type=f'mmdet.{name}', **settings)})
    near = [(8, 7, 45, 58), (0, 0, 3, 3), (55, 12, 90, 45)]
    output = stage_output([SURE, UNSURE, SURE], near)
    loss = head.loss([output], [two_persons()])[term]
    loss.backward()
    gradient = output.bboxes.grad[0]
    assert loss > 0 and gradient.isfinite().all()
    assert not gradient[1].any()
    towards = torch.tensor([TWO[0], TWO[1]]) - output.bboxes[0, [0, 2]]
    assert (gradient[[0, 2]] * towards).sum(dim=-1).lt(0).all()

    exact = head.loss([stage_output([SURE, SURE], TWO)], [two_persons()])[term]
    assert exact.item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='mmdet.FocalLoss', loss_weight=8.0),
        dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, class_weight=[1, 2, 3]),
    ],
    ids=lambda loss: loss['type'],
)
def test_action_loss_is_a_mean_over_pairs_and_a_sum_over_actions(loss):
    head = make_head(loss_action=loss)
    output = random_output()
    targets = head.get_targets(output, [two_persons()])
    each = MODELS.build(loss)(
        output.action_logits[targets.acting],
        targets.actions,
        reduction_override='none',
    )
    assert each.shape == (2, 3)
    ours = head.loss([output], [two_persons()])['loss_action']
    torch.testing.assert_close(ours, each.sum() / 2)


def test_one_person_to_many_queries():
    """Queries 0, 1 stand for the person, 3 is too near to be background."""
    person = (0, 0, 40, 40)
    output = stage_output(
        [[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 1.0]],
        [(0, 0, 40, 36), (0, 0, 30, 40), (60, 30, 90, 60), (0, 0, 20, 40)],
        [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0, 0.0], [4.0, 0.0, 0.0]],
    )
    truth = data_sample([person], [(1,)])
    head = make_head(assigner=MAX_IOU, loss_bbox=dict(type='mmdet.L1Loss'))
    targets = head.get_targets(output, [truth])
    assert targets.acting.tolist() == [[True, True, False, False]]
    assert targets.counted.tolist() == [[True, True, True, False]]
    assert targets.bboxes.tolist() == [list(person)] * 2

    losses = head.loss([output], [truth])
    torch.testing.assert_close(
        losses['loss_person'],
        2 * torch.nn.functional.cross_entropy(
            output.person_logits[0, :3],
            torch.tensor([PERSON, PERSON, BACKGROUND]),
            weight=torch.tensor([1, 0.1]),
        ),
    )  # fmt: skip
    # A mean over the two pairs of |dy| / 64 and |dx| / 96.
    torch.testing.assert_close(
        losses['loss_bbox'], torch.tensor((4 / 64 + 10 / 96) / 2)
    )
    focal = make_head(assigner=MAX_IOU, loss_person=FOCAL)
    margins = torch.tensor([[2.0], [1.0], [-3.0]])
    torch.testing.assert_close(
        focal.loss([output], [truth])['loss_person'],
        MODELS.build(FOCAL)(margins, torch.tensor([0, 0, 1]), avg_factor=2),
    )


def sampler(**settings):
    default = dict(
        type='mmdet.RandomSampler', num=4, pos_fraction=0.5, add_gt_as_proposals=False
    )
    return {**default, **settings}


def test_queries_that_are_not_sampled_count_nowhere():
    head = make_head(sampler=sampler(num=3, pos_fraction=0.34))  # 1 of 2, and 2 of 4
    output = random_output()
    torch.manual_seed(1)
    targets = head.get_targets(output, [two_persons()])
    everything = make_head().get_targets(output, [two_persons()])
    assert targets.acting.sum() == 1 and targets.counted.sum() == 3
    assert (everything.acting | ~targets.acting).all()

    torch.manual_seed(1)
    sum(head.loss([output], [two_persons()]).values()).backward()
    reached = [values.grad[0].abs().amax(dim=-1) > 0 for values in output]
    assert torch.equal(reached[0], targets.counted[0])
    assert torch.equal(reached[1], targets.acting[0])
    assert torch.equal(reached[2], targets.acting[0])


@pytest.mark.parametrize('loss', [None, FOCAL], ids=['softmax', 'sigmoid'])
def test_samplers_that_take_all_change_nothing(loss):
    settings = {} if loss is None else dict(loss_person=loss)
    output = random_output()
    expected = make_head(**settings).loss([output], [two_persons()])
    for everything in (sampler(num=100), dict(type='mmdet.PseudoSampler')):
        ours = make_head(sampler=everything, **settings).loss([output], [two_persons()])
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], value)


@pytest.mark.parametrize('loss', [FOCAL, SIGMOID_CE, QUALITY_FOCAL, VARIFOCAL, None])
@pytest.mark.parametrize('assigner', [None, MAX_IOU], ids=['one', 'many'])
@pytest.mark.parametrize('queries', [None, sampler(num=2, neg_pos_ub=0)])
def test_without_persons_all_parts_are_finite(loss, assigner, queries):
    """With the sampler not even a background query is left."""
    settings = dict(loss_person=loss, assigner=assigner, sampler=queries)
    if loss in (QUALITY_FOCAL, VARIFOCAL):
        settings['person_target'] = 'iou'
    head = make_head(**{k: v for k, v in settings.items() if v is not None})
    output = random_output()
    losses = head.loss([output], [data_sample()])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(values.grad.isfinite().all() for values in output)
    assert (losses['loss_person'] > 0) == (queries is None)


def test_a_batch_adds_up_to_its_clips():
    """Sums over clips over the number of pairs, also of sigmoid losses."""
    head = make_head(loss_person=FOCAL)
    first, second = random_output(), stage_output([SURE, UNSURE], TWO)
    alone = [
        head.loss([StageOutput(*(v[:, :2] for v in one))], [truth])['loss_person']
        for one, truth in ((first, two_persons()), (second, data_sample()))
    ]
    both = StageOutput(
        *(torch.cat((a[:, :2], b)) for a, b in zip(first, second, strict=True))
    )
    together = head.loss([both], [two_persons(), data_sample()])['loss_person']
    torch.testing.assert_close(together, (2 * alone[0] + alone[1]) / 2)


def copies(*persons):
    """Outputs for noised copies of these persons, -1 for padding."""
    output = random_output(len(persons))
    return output, torch.tensor([persons])


def test_denoising_is_a_matching_known_beforehand():
    """Copies match whatever they look like; the terms are the head's own."""
    head = make_head()
    output, persons = copies(1, 0, -1, 1, 0, -1)
    losses = head.loss_denoising([output, output], persons, [two_persons()])
    terms = ['loss_person', 'loss_bbox', 'loss_iou', 'loss_action']
    assert sorted(losses) == sorted(
        prefix + term for prefix in ('d0.dn.', 'dn.') for term in terms
    )
    rows = [0, 1, 3, 4]
    boxes = output.bboxes[0, rows]
    expected = torch.tensor([TWO[1], TWO[0], TWO[1], TWO[0]], dtype=torch.float32)
    scale = torch.tensor([96.0, 64, 96, 64])
    torch.testing.assert_close(
        losses['dn.loss_bbox'],
        2 * ((boxes - expected) / scale).abs().sum() / 4,
    )
    torch.testing.assert_close(
        losses['dn.loss_person'],
        2 * torch.nn.functional.cross_entropy(
            output.person_logits[0, rows], torch.tensor([PERSON] * 4)
        ),
    )  # fmt: skip
    sum(losses.values()).backward()
    for values in output:
        assert not values.grad[0, [2, 5]].any()


@pytest.mark.parametrize('loss', [None, FOCAL], ids=['softmax', 'sigmoid'])
def test_padding_alone_costs_nothing(loss):
    head = make_head(**({} if loss is None else dict(loss_person=loss)))
    output, persons = copies(-1, -1)
    losses = head.loss_denoising([output], persons, [data_sample()])
    sum(losses.values()).backward()
    assert all(value == 0 for value in losses.values())
    assert all(values.grad is not None for values in output)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(score_thr=1.5), r'score_thr=1.5, which has to be in \[0, 1\]'),
        (dict(fallback_topk=-1), 'fallback_topk=-1, which has to be 0 or more'),
        (
            dict(sampler=dict(type='mmdet.RandomSampler', num=4, pos_fraction=0.5)),
            'an annotated box is not a query; set it to False',
        ),
        (
            dict(loss_person=dict(**SIGMOID_CE, class_weight=[1.0, 0.1])),
            r'use_sigmoid=True has class_weight=\[1.0, 0.1\]; .*_delete_=True',
        ),
        (
            dict(loss_action=dict(type='mmdet.CrossEntropyLoss')),
            'uses a softmax, but .*; set use_sigmoid=True',
        ),
        (dict(person_target='iou'), r"learns no person_target='iou'; take a loss"),
    ],
)
def test_what_would_go_wrong_unnoticed(settings, message):
    with pytest.raises(UserError, match=message):
        make_head(**settings)


@pytest.mark.parametrize(
    'settings', [dict(score_mode='sum'), dict(person_target='box')], ids=str
)
def test_words_of_the_config_are_checked_as_its_types(settings):
    (name,) = settings
    cfg = Config(dict(model=tiny_head(**settings)))
    with pytest.raises(UserError, match=f'STMixerHead .*{name}='):
        check_arguments(cfg)


def test_a_term_may_be_switched_off():
    head = make_head(loss_iou=dict(type='mmdet.GIoULoss', loss_weight=0.0))
    assert head.loss([random_output()], [two_persons()])['loss_iou'] == 0


@MODELS.register_module()
class HingeLoss(torch.nn.Module):
    """Nothing to learn from an answer that is right by a margin of 1."""

    def forward(self, logits, labels):
        return (1 - (2 * labels - 1) * logits).clamp(min=0).mean()


@MODELS.register_module()
class RampedLoss(torch.nn.BCEWithLogitsLoss):
    """Phased in: 0 at first."""

    steps = 0

    def forward(self, logits, labels):
        self.steps += 1
        return super().forward(logits, labels) * (self.steps - 1) / 10


@pytest.mark.parametrize('loss', [HingeLoss, RampedLoss])
def test_any_mean_over_logits_and_labels_may_be_the_action_loss(loss):
    head = make_head(loss_action=dict(type=loss.__name__))
    twin, output = loss(), random_output()
    targets = head.get_targets(output, [two_persons()])
    for _ in range(2):
        ours = head.loss([output], [two_persons()])['loss_action']
        expected = twin(output.action_logits[targets.acting], targets.actions)
        torch.testing.assert_close(ours, 3 * expected)
