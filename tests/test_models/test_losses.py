import math

import pytest
import torch
import torch.nn.functional as F

from stmixer_mm.models.losses.asymmetric import asymmetric_loss
from stmixer_mm.models.losses.class_balanced import class_balanced_weights
from stmixer_mm.registry import MODELS

BCE = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True)
FOCAL = dict(type='mmdet.FocalLoss')


def logits_and_labels(rows=6, actions=4):
    torch.manual_seed(0)
    logits = (3 * torch.randn(rows, actions)).requires_grad_()
    return logits, (torch.rand(rows, actions) < 0.3).float()


def asymmetric(**settings):
    return MODELS.build(dict(type='AsymmetricLoss', **settings))


def class_balanced(**settings):
    return MODELS.build(dict(type='ClassBalancedLoss', **settings))


def test_asymmetric_by_hand():
    """Probability 0.5: a positive costs 0.5 ln 2, a negative -0.45^2 ln 0.55."""
    loss = asymmetric(gamma_neg=2, gamma_pos=1, clip=0.05, reduction='none')
    values = loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    expected = torch.tensor([[0.5 * math.log(2), -(0.45**2) * math.log(0.55)]])
    torch.testing.assert_close(values, expected)


def test_asymmetric_without_asymmetry_is_cross_entropy():
    logits, labels = logits_and_labels()
    ours = asymmetric(gamma_neg=0, gamma_pos=0, clip=0)(logits, labels)
    torch.testing.assert_close(ours, F.binary_cross_entropy_with_logits(logits, labels))


def test_asymmetric_with_equal_gammas_is_focal_without_alpha():
    logits, labels = logits_and_labels()
    ours = asymmetric(gamma_neg=2, gamma_pos=2, clip=0, loss_weight=0.5)
    # With alpha = 0.5 both kinds are halved.
    focal = MODELS.build(dict(**FOCAL, gamma=2.0, alpha=0.5))
    torch.testing.assert_close(ours(logits, labels), focal(logits, labels))


def test_absent_classes_below_the_margin_cost_nothing():
    loss = asymmetric(clip=0.05, reduction='none')
    logits = torch.tensor([[-3.0, -2.9]], requires_grad=True)  # 0.047 and 0.052
    values = loss(logits, torch.zeros(1, 2))
    values.sum().backward()
    assert logits.grad[0, 0] == 0 and logits.grad[0, 1] > 0
    assert values[0, 0].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize('clip', [0.0, 0.05])
def test_asymmetric_is_finite_at_the_ends(gamma, clip):
    logits = torch.tensor([[-200.0, -30, 0, 30, 200]], requires_grad=True)
    for labels in (torch.zeros(1, 5), torch.ones(1, 5)):
        loss = asymmetric_loss(
            logits, labels, gamma_neg=gamma, gamma_pos=gamma, clip=clip
        ).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all()


def test_weights_and_reductions_are_mmdets():
    logits, labels = logits_and_labels()
    weights = torch.rand_like(logits)
    each = asymmetric(reduction='none', loss_weight=3.0)(logits, labels)
    ours = asymmetric(loss_weight=3.0)
    torch.testing.assert_close(ours(logits, labels), each.mean())
    torch.testing.assert_close(
        ours(logits, labels, weights, avg_factor=7), (each * weights).sum() / 7
    )
    torch.testing.assert_close(
        ours(logits, labels, weights, reduction_override='sum'), (each * weights).sum()
    )


@pytest.mark.parametrize('avg_factor', [None, 7])
def test_an_unknown_reduction_fails(avg_factor):
    with pytest.raises(ValueError, match='reduction'):
        asymmetric(reduction='average')(*logits_and_labels(), avg_factor=avg_factor)


def test_class_balanced_weights_by_hand():
    """Effective numbers 1 and 1 + 0.5 + 0.25: the weights are as 1.75 to 1."""
    ours = class_balanced_weights([1, 3], beta=0.5)
    assert ours == pytest.approx([3.5 / 2.75, 2 / 2.75])
    assert sum(ours) == pytest.approx(2)


def test_class_balanced_weights_in_the_limits():
    assert class_balanced_weights([1, 50, 3000], beta=0) == pytest.approx([1, 1, 1])
    almost_inverse = class_balanced_weights([10, 20, 40], beta=1 - 1e-9)
    assert almost_inverse == pytest.approx([12 / 7, 6 / 7, 3 / 7], rel=1e-6)


@pytest.mark.parametrize('loss', [BCE, FOCAL, dict(type='AsymmetricLoss')])
def test_class_balanced_with_beta_zero_is_the_loss_alone(loss):
    logits, labels = logits_and_labels()
    ours = class_balanced(loss=loss, class_counts=[1, 5, 20, 9], beta=0.0)
    torch.testing.assert_close(ours(logits, labels), MODELS.build(loss)(logits, labels))


@pytest.mark.parametrize('loss', [BCE, FOCAL, dict(type='AsymmetricLoss')])
def test_class_balanced_weighs_columns(loss):
    logits, labels = logits_and_labels()
    ours = class_balanced(loss=loss, class_counts=[1, 5, 20, 9], beta=0.9)
    each = MODELS.build(loss)(logits, labels, reduction_override='none')
    expected = (each.mean(dim=0) * logits.new_tensor(ours.class_weights)).mean()
    torch.testing.assert_close(ours(logits, labels), expected)
    halved = ours(logits, labels, torch.full_like(logits, 0.5))
    torch.testing.assert_close(halved, expected / 2)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(gamma_neg=-1), 'gamma_neg=-1 and .* of 0 or more'),
        (dict(clip=1), r'clip=1 in \[0, 1\)'),
    ],
)
def test_asymmetric_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        asymmetric(**settings)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(class_counts=[1, 2], beta=1), r'beta=1 is not in \[0, 1\)'),
        (dict(class_counts=[1, 0, 3]), r'\[1, 0, 3\] has a class without.*at least 1'),
        (dict(class_counts=[]), 'give each class at least 1'),
    ],
)
def test_class_balanced_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        class_balanced(loss=BCE, **settings)


def test_counts_for_another_number_of_classes():
    logits, labels = logits_and_labels()
    with pytest.raises(ValueError, match=r'2 entries but .* 4 classes; give one count'):
        class_balanced(loss=BCE, class_counts=[1, 2])(logits, labels)
