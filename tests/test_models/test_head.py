import re

import pytest
import torch
import torch.nn.functional as F
from run_tool import ROOT
from tiny import data_sample, tiny_head, two
from torch.testing import assert_close

from stmixer_mm.errors import UserError
from stmixer_mm.models.heads.targets import BACKGROUND, PERSON
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import StageOutput

SURE, UNSURE = [4.0, -4.0], [-4.0, 4.0]  # person logits


def make_head(**settings):
    return MODELS.build(tiny_head(**settings))


def targets_of(head, output, samples):
    """The truth for the queries of one stage."""
    return head.match([output], samples, {})[0]['']


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
    targets = targets_of(make_head(), output, [two()])
    assert targets.persons.tolist() == [BACKGROUND, PERSON, PERSON]
    assert targets.bboxes.tolist() == [[50, 10, 90, 50], [5, 5, 40, 60]]
    assert targets.actions.tolist() == [[0, 1, 1], [1, 0, 0]]  # dummy column gone
    assert targets.box_scale.tolist() == [[96, 64, 96, 64]] * 2


def test_literal_losses():
    output = stage_output([[0.0, 0.0], [0.0, 0.0]], [(0, 0, 48, 32), (90, 60, 92, 62)])
    truth = data_sample([(0, 0, 96, 64)], [(1,)])
    losses = make_head().loss([output], [truth])[0]
    log2 = torch.tensor(2.0).log()
    assert_close(losses['loss_person'], 2 * log2)
    assert_close(losses['loss_bbox'], torch.tensor(2 * (0.5 + 0.5)))
    assert_close(losses['loss_iou'], torch.tensor(2 * 0.75))
    assert_close(losses['loss_action'], 0.3 * 3 * log2)


def predict(output, **settings):
    (predictions,) = make_head(**settings).predict([output], [data_sample()])
    return predictions


def test_predictions_keep_sure_queries_in_order():
    output = stage_output(
        [UNSURE, SURE, [0.0, 0.0], SURE],
        [(0, 0, 1, 1), (-5, 3, 20, 30), (0, 0, 2, 2), (48, 32, 200, 100)],
        [[0.0, 0.0, 0.0]] * 3 + [[0.0, 20.0, -20.0]],
    )
    predictions = predict(output)
    bboxes = [[0, 3 / 64, 20 / 96, 30 / 64], [0.5, 0.5, 95 / 96, 63 / 64]]
    assert_close(predictions.bboxes, torch.tensor(bboxes))
    assert_close(predictions.scores, torch.tensor([[0, 0.5, 0.5, 0.5], [0, 0.5, 1, 0]]))


@pytest.mark.parametrize('topk, count', [(0, 0), (2, 2), (9, 3)])
def test_fallback_keeps_the_best(topk, count):
    output = stage_output(
        [UNSURE, [-1.0, 1.0], [-2.0, 2.0]], [(0, 0, 9, 9), (0, 0, 48, 32), (0, 0, 8, 8)]
    )
    predictions = predict(output, fallback_topk=topk)
    assert len(predictions) == count
    if count:
        assert predictions.bboxes[0].tolist() == [0, 0, 0.5, 0.5]  # best first


def test_scores_times_person_score():
    output = stage_output([[1.0, 0.0]], [(0, 0, 9, 9)])
    scores = predict(output, score_mode='product').scores
    assert_close(scores[0, 1:], torch.full((3,), 0.5) * torch.tensor(1.0).sigmoid())


FOCAL = dict(type='mmdet.FocalLoss', loss_weight=2.0)
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


def test_sigmoid_costs_see_the_person_score():
    """Raw logits (5, 6) and (1, -1) would be matched the other way round."""
    output = stage_output([[5.0, 6.0], [1.0, -1.0]], [(0, 0, 9, 9)] * 2)
    costs = [dict(type='mmdet.FocalLossCost')]
    head = make_head(assigner=dict(type='mmdet.HungarianAssigner', match_costs=costs))
    targets = targets_of(head, output, [data_sample([(0, 0, 9, 9)], [(1,)])])
    assert targets.action_rows.tolist() == [1]


def test_sigmoid_person_loss_is_the_hosts_on_margins():
    """The host takes class numbers, 0 for a person and 1 for none."""
    output = random_output()
    head = make_head(loss_person=FOCAL)
    persons = targets_of(head, output, [two()]).persons
    margins = output.person_logits[0] @ torch.tensor([[1.0], [-1.0]])
    ours = head.loss([output], [two()])[0]['loss_person']
    assert_close(ours, MODELS.build(FOCAL)(margins, persons, avg_factor=2))


MIXING = (ROOT / 'docs' / 'mixing.md').read_text()
LISTED = re.search('`loss_person`, `loss_action`: (.*?)\n- ', MIXING, re.DOTALL)[1]


@pytest.mark.parametrize('name', re.findall(r'\b(?:[A-Z][a-z]+){1,2}\b', LISTED))
def test_losses_of_twice_the_actions_are_twice_as_high(name):
    """A loss that sums over the actions is refused: it would be A times too high."""
    loss = dict(type=f'mmdet.{name}Loss', use_sigmoid=True)
    if name == 'QualityFocal':
        with pytest.raises(UserError, match='a sum over the actions'):
            make_head(loss_action=loss)
        return
    output, terms = random_output(), []
    for times in (1, 2):
        head = make_head(loss_action=loss, num_classes=1 + 3 * times)
        truth = two()
        dummy, actions = truth.gt_instances.labels.split((1, 3), dim=1)
        labels = torch.cat([dummy, actions.repeat(1, times)], dim=1)
        truth.gt_instances.labels = labels
        logits = output.action_logits.repeat(1, 1, times)
        stages = [output._replace(action_logits=logits)]
        terms.append(head.loss(stages, [truth])[0]['loss_action'].item())
    assert terms[1] == pytest.approx(2 * terms[0], rel=1e-3) and terms[0] > 0


def test_losses_are_those_of_a_compiled_model():
    """Matching stands outside of the graph."""
    head, output, truth = make_head(), random_output(), [two()]
    compiled = torch.compile(head.loss, backend='eager')
    assert_close(compiled([output], truth), head.loss([output], truth))


def test_one_person_to_many_queries():
    """Queries 0, 1 stand for the person, 3 is too near to be background."""
    person = (0, 0, 40, 40)
    output = stage_output(
        [[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 1.0]],
        [(0, 0, 40, 36), (0, 0, 30, 40), (60, 30, 90, 60), (0, 0, 20, 40)],
    )
    truth = data_sample([person], [(1,)])
    head = make_head(assigner=MAX_IOU)
    targets = targets_of(head, output, [truth])
    assert targets.action_rows.tolist() == [0, 1]
    assert targets.person_rows.tolist() == [0, 1, 2]
    assert targets.bboxes.tolist() == [list(person)] * 2
    logits, persons = output.person_logits[0, :3], [PERSON, PERSON, BACKGROUND]
    expected = F.cross_entropy(logits, torch.tensor(persons), torch.tensor([1, 0.1]))
    loss = head.loss([output], [truth])[0]['loss_person']
    assert_close(loss, 2 * expected)


@pytest.mark.parametrize(
    'loss', [dict(loss_person=FOCAL), {}], ids=['one logit', 'two']
)
@pytest.mark.parametrize('assigner', [{}, dict(assigner=MAX_IOU)], ids=['one', 'many'])
def test_without_persons_losses_are_finite_with_a_gradient(loss, assigner):
    output = random_output()
    losses = make_head(**loss, **assigner).loss([output], [data_sample()])[0]
    sum(losses.values()).backward()
    assert all(values.grad.isfinite().all() for values in output)
    person = losses.pop('loss_person')
    assert person.isfinite() and person > 0 and not any(losses.values())


def test_a_batch_adds_up_to_its_clips():
    """Sums over clips over the number of pairs, also of sigmoid losses."""
    first = random_output(2)
    second = stage_output([SURE, UNSURE], [(5, 5, 40, 60), (50, 10, 90, 50)])
    joined = StageOutput(*map(torch.cat, zip(first, second, strict=True)))

    def loss(output, *truth):
        return make_head(loss_person=FOCAL).loss([output], truth)[0]['loss_person']

    expected = (2 * loss(first, two()) + loss(second, data_sample())) / 2
    assert_close(loss(joined, two(), data_sample()), expected)


def test_persons_that_are_known_need_no_matching():
    """Queries match whatever they look like; -1 is padding."""
    head, output = make_head(), random_output()
    known_persons = {'dn.': torch.tensor([[2, 1, -1, 2, 1, -1]])}
    losses, _ = head.loss([output] * 2, [two()], known_persons)
    terms = {'loss_person', 'loss_bbox', 'loss_iou', 'loss_action'}
    prefixes = 'd0.', '', 'd0.dn.', 'dn.'
    assert {*losses} == {prefix + term for prefix in prefixes for term in terms}
    rows = [0, 1, 3, 4]
    truth = two().gt_instances.bboxes[[1, 0, 1, 0]]
    distances = (output.bboxes[0, rows] - truth) / torch.tensor([96.0, 64, 96, 64])
    assert_close(losses['dn.loss_bbox'], 2 * distances.abs().sum() / 4)
    logits, persons = output.person_logits[0, rows], torch.tensor([PERSON] * 4)
    assert_close(losses['dn.loss_person'], 2 * F.cross_entropy(logits, persons))
    sum(losses.values()).backward()
    for values in output:
        assert not values.grad[0, [2, 5]].any()


@pytest.mark.parametrize(
    'settings',
    [
        dict(loss_action=dict(type='mmdet.L1Loss')),
        dict(loss_action=dict(type='mmdet.KnowledgeDistillationKLDivLoss')),
        dict(loss_action=dict(type='mmdet.CrossEntropyLoss')),
        dict(single_label=True),
        *(dict(score_thr=value) for value in (3.7, float('nan'), [], '0.5')),
        *(dict(fallback_topk=value) for value in (-1, 0.5, float('nan'))),
    ],
    ids=str,
)
def test_settings_that_would_go_wrong_unnoticed(settings):
    with pytest.raises(UserError):
        make_head(**settings)


def test_a_person_without_an_action_is_background_of_a_softmax():
    loss = dict(type='mmdet.CrossEntropyLoss')
    head = make_head(single_label=True, loss_action=loss)
    boxes = [(0, 0, 48, 32), (90, 60, 92, 62)]
    output = stage_output([SURE, UNSURE], boxes, [[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    without = data_sample([boxes[0]], [()])
    losses = head.loss([output], [without])[0]
    logits = torch.tensor([[0, 0.0, 1, 2], [0, 3.0, 0, 0]])
    assert_close(losses['loss_action'], F.cross_entropy(logits, torch.zeros(2).long()))
    with pytest.raises(UserError, match='several actions'):
        head.loss([output], [data_sample([boxes[0]], [(1, 2)])])
