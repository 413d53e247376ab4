"""Laws of the two-stage detector."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from tiny import (
    NUM_CLASSES,
    batch,
    data_sample,
    tiny_decoder,
    tiny_detector,
    tiny_head,
    whole_frames,
)

import stmixer_mm.projects.roi  # noqa: F401
from stmixer_mm.errors import UserError
from stmixer_mm.registry import MODELS

BOXES = [(5, 5, 40, 60), (50, 10, 90, 50)]


def tiny_roi_head(bbox_head=None, extractor=None, sampler=None, **overrides):
    return dict(
        type='mmdet.AVARoIHead',
        bbox_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor3D',
            featmap_stride=4,
            output_size=4,
            with_temporal_pool=False,
            **(extractor or {}),
        ),
        bbox_head={
            **dict(
                type='mmdet.BBoxHeadAVA',
                background_class=True,
                in_channels=4 * 16,
                num_classes=NUM_CLASSES,
                topk=2,
            ),
            **(bbox_head or {}),
        },
        train_cfg=dict(
            assigner=dict(
                type='mmdet.MaxIoUAssignerAVA',
                pos_iou_thr=0.9,
                neg_iou_thr=0.9,
                min_pos_iou=0.9,
                iou_calculator=dict(type='mmdet.BboxOverlaps2D'),
            ),
            sampler=dict(
                type='mmdet.RandomSampler',
                num=32,
                pos_fraction=1,
                **(sampler or {}),
            ),
            pos_weight=1.0,
        ),
        **overrides,
    )


BRANCH = dict(decoder=tiny_decoder(num_classes=2), head=tiny_head(score_thr=0.0))


def roi_detector(persons='ground_truth', roi_head=None, **overrides):
    """Of the tiny backbone and neck, with random weights."""
    tiny = tiny_detector()
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='RoIDetector',
            data_preprocessor=tiny['data_preprocessor'],
            backbone=tiny['backbone'],
            neck=tiny['neck'],
            roi_head=roi_head or tiny_roi_head(),
            persons=persons,
            **overrides,
        )
    )
    model.init_weights()
    return model


def two(proposals=None, **kwargs):
    sample = data_sample(BOXES, [(1,), (2, 3)], **kwargs)
    if proposals is not None:
        sample.proposals = InstanceData(
            bboxes=torch.tensor(proposals, dtype=torch.float32).reshape(-1, 4)
        )
    return sample


def nobody(**kwargs):
    return data_sample(name='empty,0001', **kwargs)


def losses_of(model, *samples):
    data = model.data_preprocessor(batch(*samples), training=True)
    return model(**data, mode='loss')


@pytest.mark.parametrize(
    'samples', [(two, nobody), (nobody, nobody), (two,)], ids=['mixed', 'empty', 'two']
)
@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
@pytest.mark.parametrize(
    'persons', ['ground_truth', 'proposals', BRANCH], ids=['truth', 'given', 'branch']
)
def test_losses_are_finite_and_reach_every_parameter(persons, dtype, samples):
    model = roi_detector(persons).train()
    samples = [make() for make in samples]
    with torch.autocast('cpu', dtype=dtype or torch.bfloat16, enabled=bool(dtype)):
        total, log = model.parse_losses(losses_of(model, *samples))
    total.backward()
    assert total.isfinite(), log
    assert 'loss_action_cls' in log
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_clips_without_a_person_do_not_change_the_loss_of_the_others():
    model = roi_detector().eval()  # batch norm of each clip by itself
    data = model.data_preprocessor(batch(two()), training=True)
    alone = model(**data, mode='loss')['loss_action_cls']
    inputs = torch.cat((data['inputs'].flip(-1), data['inputs']))
    together = model(inputs, [nobody(), two()], mode='loss')['loss_action_cls']
    torch.testing.assert_close(together, alone)


def test_it_equals_the_host_detector():
    """mmdet's FastRCNN, as mmaction2 configures it, given the same weights."""
    roi_head = tiny_roi_head(
        bbox_head=dict(in_channels=32), extractor=dict(aligned=True)
    )
    roi_head['bbox_roi_extractor']['featmap_stride'] = 32
    backbone = {**tiny_detector()['backbone'], 'out_indices': (3,)}
    backbone['type'] = 'mmaction.ResNet3dSlowOnly'
    ours = MODELS.build(
        dict(
            type='RoIDetector',
            data_preprocessor=tiny_detector()['data_preprocessor'],
            backbone=backbone,
            neck=None,
            roi_head=roi_head,
            persons='proposals',
        )
    ).eval()
    train_cfg = ConfigDict(rcnn=roi_head.pop('train_cfg'))
    host = MODELS.build(
        dict(
            type='mmdet.FastRCNN',
            backbone=backbone,
            roi_head=ConfigDict(roi_head),
            train_cfg=train_cfg,
            test_cfg=ConfigDict(rcnn=None),
            data_preprocessor=dict(type='mmdet.DetDataPreprocessor'),
        )
    ).eval()
    host.load_state_dict(ours.state_dict())

    def sample():
        return two([(6, 5, 40, 60), (20, 0, 70, 33)])

    clip = ours.data_preprocessor(batch(sample()))['inputs']
    losses, expected = (model(clip, [sample()], mode='loss') for model in (ours, host))
    assert losses.keys() == expected.keys()
    torch.testing.assert_close(losses['loss_action_cls'], expected['loss_action_cls'])
    (found,) = ours(clip, [sample()], mode='predict')
    host_sample = sample()
    host_sample.proposals = sample().proposals
    (truth,) = host.roi_head.predict(
        host.extract_feat(clip), [host_sample.proposals], [host_sample]
    )
    torch.testing.assert_close(found.pred_instances.bboxes, truth.bboxes)
    torch.testing.assert_close(found.pred_instances.scores[:, 1:], truth.scores[:, 1:])


@pytest.mark.parametrize(
    'persons', ['ground_truth', 'proposals', BRANCH], ids=['truth', 'given', 'branch']
)
def test_a_batch_is_its_clips_one_by_one(persons):
    model = roi_detector(persons).eval()
    small = dict(img_shape=(40, 70))
    samples = [
        two([(0, 0, 50, 30)]),
        two([], **small),
        two([(0, 0, 200, 30), (5, 5, 9, 9)], **small),
    ]
    data = model.data_preprocessor(batch(*samples))
    with torch.no_grad():
        together = [one.pred_instances.clone() for one in model(**data, mode='predict')]
        for clip, (sample, expected) in enumerate(zip(samples, together, strict=True)):
            inputs = data['inputs'][clip : clip + 1]
            (alone,) = model(inputs, [sample], mode='predict')
            for key in ('bboxes', 'scores'):
                torch.testing.assert_close(alone.pred_instances[key], expected[key])
            assert ((expected.bboxes >= 0) & (expected.bboxes <= 1)).all()
            assert expected.scores.shape == (len(expected), NUM_CLASSES)
            assert not expected.scores[:, 0].any()
        logits = model(**data, mode='tensor')
    torch.testing.assert_close(logits[0][:, 1:].sigmoid(), together[0].scores[:, 1:])


def test_where_the_boxes_at_test_come_from():
    proposals = [(0, 0, 48, 32), (0, 0, 200, 64)]
    sample = two(proposals)
    (truth,) = roi_detector('ground_truth').test_step(batch(sample))
    scale = torch.tensor([96.0, 64, 96, 64])
    torch.testing.assert_close(
        truth.pred_instances.bboxes * scale, sample.gt_instances.bboxes
    )
    (given,) = roi_detector('proposals').test_step(batch(sample))
    assert given.pred_instances.bboxes.tolist() == [[0, 0, 0.5, 0.5], [0, 0, 1, 1]]
    model = roi_detector(BRANCH).eval()
    (found,) = model.test_step(batch(sample))
    data = model.data_preprocessor(batch(sample))
    with torch.no_grad():
        seen = model.person_decoder(
            model.extract_feat(data['inputs']),
            whole_frames(model.person_decoder, [(64, 96)]),
            (64, 96),
        )
        (persons,) = model.person_head.predict(seen.stages, [two()])
    torch.testing.assert_close(found.pred_instances.bboxes, persons.bboxes)


def test_proposals_near_true_boxes_are_trained_on():
    """With proposals that repeat one box, its actions weigh more."""
    model = roi_detector('proposals').eval()
    plain = losses_of(model, two())
    doubled = losses_of(model, two([BOXES[0]] * 5))
    far = losses_of(model, two([(0, 40, 10, 60)] * 5))
    torch.testing.assert_close(far['loss_action_cls'], plain['loss_action_cls'])
    assert (doubled['loss_action_cls'] - plain['loss_action_cls']).abs() > 1e-6


def test_what_actions_there_are_does_not_reach_the_person_branch():
    model = roi_detector(BRANCH).eval()
    first = losses_of(model, two())
    second = losses_of(model, data_sample(BOXES, [(3,), (1,)]))
    names = [name for name in first if name.startswith('person.')]
    assert len(names) == 2 * 4
    for name in names:
        torch.testing.assert_close(first[name], second[name])


@pytest.mark.parametrize(
    'overrides',
    [
        dict(roi_head=tiny_roi_head(sampler=dict(add_gt_as_proposals=False))),
        dict(roi_head={**tiny_roi_head(), 'train_cfg': None}),
        dict(roi_head=tiny_roi_head(bbox_head=dict(background_class=False))),
        dict(levels=(1,)),
        dict(levels=(0,)),
        dict(persons='proposals'),
    ],
    ids=['sampler', 'no train_cfg', 'class 0', 'stride', 'width', 'boxes'],
)
def test_parts_and_samples_that_do_not_fit(overrides):
    with pytest.raises(UserError):
        model = roi_detector(**overrides)
        losses_of(model, two())
        model.test_step(batch(two()))
