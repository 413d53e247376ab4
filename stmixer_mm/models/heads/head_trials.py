"""The parts of a head, each used once on made-up boxes when the head is built.

So a part that does not fit fails at once, in a sentence that names it, and not as a
shape error inside the first training step.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.heads.matching import (
    BACKGROUND,
    PERSON,
    match_clip,
    person_loss,
    uses_sigmoid,
)

IMG_META = dict(img_shape=(100, 100))
TRUE_BBOX = (10.0, 10.0, 50.0, 50.0)
# A sure query on the person and unsure ones elsewhere. The first one's corner is
# outside the person: an assigner that takes priors for points does not find it.
ON_PERSON, ELSEWHERE = (9.9, 9.9, 50.1, 50.1), (12.0, 70.0, 20.0, 90.0)
# A loss has to fall from the last to the first.
LOGITS = (8.0, 2.0, -8.0)  # for what is there: right, nearly right, wrong


def try_assigner(assigner: object) -> None:
    """
    Raises:
        ValueError: It does not match queries to persons.
    """
    given = 'the boxes and logits of queries'
    ways_out = (
        'take one that compares predictions with the truth, such as '
        'mmdet.HungarianAssigner or mmdet.MaxIoUAssigner'
    )
    assigned = _try('assigner', assigner, given, ways_out, _match_made_up)
    on_person, elsewhere = assigned.tolist()
    if on_person != 1 or elsewhere > 0:
        raise UserError(
            f'assigner={_name(assigner)} does not fit: of a sure query on a true '
            f'person and one elsewhere it makes {assigned.tolist()}, not [1, 0]; {ways_out}.'
        )


def try_sampler(sampler: object, assigner: object) -> None:
    """
    Raises:
        ValueError: It does not choose among matched queries.
    """
    if getattr(sampler, 'add_gt_as_proposals', False):
        raise UserError(
            f'sampler={_name(sampler)} has add_gt_as_proposals=True, but a true box is '
            'no query and says nothing; set add_gt_as_proposals=False.'
        )
    _try(
        'sampler',
        sampler,
        f'what {_name(assigner)} matched',
        'take one that needs no more than that, such as mmdet.RandomSampler or '
        'mmdet.PseudoSampler',
        # Most samplers choose only where there is more than they want.
        lambda copy: _match_made_up(deepcopy(assigner), copy, num_elsewhere=1000),
    )


def try_person_loss(loss: nn.Module) -> None:
    """
    Raises:
        ValueError: It is no loss of person logits.
    """
    sigmoid = uses_sigmoid(loss)
    num_weights, meaning = (1, 'persons') if sigmoid else (2, 'person and background')
    class_weight = getattr(loss, 'class_weight', None)
    if class_weight is not None and len(class_weight) != num_weights:
        raise UserError(
            f'loss_person={_name(loss)} with use_sigmoid={sigmoid} has class_weight='
            f'{list(class_weight)} but weighs {meaning}; give {num_weights}, or None '
            '(a child config that replaces a loss wants _delete_=True).'
        )
    labels = torch.tensor((PERSON, BACKGROUND, PERSON), device='cpu')
    presence = (labels == PERSON).float()

    def use(copy: nn.Module, logit: float) -> Tensor:
        person_logits = torch.stack((presence, 1 - presence), dim=-1) * logit
        one = torch.tensor(1.0)
        return person_loss(
            copy, person_logits, labels, presence, avg_pairs=one, avg_weight=one
        )

    _try_loss(
        'loss_person',
        loss,
        'logits (n, 1) and targets (n, 1) in [0, 1]'
        if sigmoid
        else 'logits (n, 2) and labels (n,)',
        'mmdet.CrossEntropyLoss, mmdet.FocalLoss or mmdet.QualityFocalLoss',
        lambda copy: [use(copy, logit) for logit in LOGITS],
    )


def try_box_loss(name: str, loss: nn.Module) -> None:
    """
    Raises:
        ValueError: It is no loss of boxes.
    """
    _try_loss(
        name,
        loss,
        'boxes (n, 4) and an avg_factor',
        'mmdet.L1Loss' if name == 'loss_bbox' else 'mmdet.GIoULoss',
        lambda copy: [
            copy(
                torch.tensor((bbox,)) / 100,
                torch.tensor((TRUE_BBOX,)) / 100,
                avg_factor=torch.tensor(1.0),
            )
            for bbox in (ON_PERSON, ELSEWHERE)
        ],
    )


def try_action_loss(loss: nn.Module, num_actions: int) -> None:
    """
    Raises:
        ValueError: It is no loss of multi-label logits.
    """
    if not getattr(loss, 'use_sigmoid', True):
        raise UserError(
            f'loss_action={_name(loss)} uses a softmax, but a person does several '
            'actions at once and their scores are sigmoids; set use_sigmoid=True.'
        )
    # Not even the rows' sums may matter: there are persons without an action.
    labels = torch.tensor((1.0, 0.0, 1.0), device='cpu')[:, None].repeat(1, num_actions)
    _try_loss(
        'loss_action',
        loss,
        f'logits and multi-hot labels (n, {num_actions})',
        'mmdet.FocalLoss, mmdet.CrossEntropyLoss with use_sigmoid=True, '
        'AsymmetricLoss or mmaction.BCELossWithLogits',
        lambda copy: [copy((2 * labels - 1) * logit, labels) for logit in LOGITS],
    )


def _match_made_up(
    assigner: object, sampler: object | None = None, num_elsewhere: int = 1
) -> Tensor:
    return match_clip(
        torch.tensor([(4.0, -4.0)] + num_elsewhere * [(-4.0, 4.0)]),
        torch.tensor([ON_PERSON] + num_elsewhere * [ELSEWHERE]),
        InstanceData(bboxes=torch.tensor((TRUE_BBOX,))),
        IMG_META,
        assigner=assigner,
        sampler=sampler,
    )


def _try_loss(
    name: str,
    loss: nn.Module,
    given: str,
    examples: str,
    use: Callable[[nn.Module], list[Tensor]],
) -> None:
    ways_out = f'take one that does, such as {examples}'
    values = _try(name, loss, given, ways_out, lambda copy: torch.stack(use(copy)))
    if getattr(loss, 'loss_weight', 1) == 0:
        return  # a term that is switched off
    if values.dim() != 1 or not (values.diff() > 0).all():
        raise UserError(
            f'{name}={_name(loss)} does not fit: given {given} it makes '
            f'{values.tolist()} of right, then worse answers, not a number that rises; '
            f'{ways_out}.'
        )


def _try(
    name: str, part: object, given: str, ways_out: str, use: Callable[[object], Tensor]
) -> Tensor:
    # Parts keep states (momentum of a loss, random numbers of a sampler), and models
    # are built on the meta device too.
    try:
        with torch.random.fork_rng(devices=[]), torch.device('cpu'), torch.no_grad():
            return use(deepcopy(part))
    except Exception as error:
        answer = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise UserError(
            f'{name}={_name(part)} does not fit: given {given} it stops with '
            f'"{answer}"; {ways_out}.'
        ) from error


def _name(part: object) -> str:
    return type(part).__name__
