"""Laws of the two-stage detector."""

import pytest
import torch
from every_config import CONFIGS
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from tiny import (
    NUM_CLASSES,
    assert_all_learn,
    batch,
    losses_of,
    nobody,
    tiny_decoder,
    tiny_detector,
    tiny_head,
    whole_frames,
)
from tiny import two as two_persons
from torch.testing import assert_close

import stmixer_mm.projects.roi  # noqa: F401
from stmixer_mm.registry import MODELS

ROI_HEAD = Config.fromfile(CONFIGS / 'roi/roi_tiny_1xb8-4x3x1_toy.py').model.roi_head
BRANCH = dict(decoder=tiny_decoder(num_classes=2), head=tiny_head(score_thr=0.0))
each_source = pytest.mark.parametrize(
    'persons', ['ground_truth', 'proposals', BRANCH], ids=['truth', 'given', 'branch']
)


def tiny_roi_head(in_channels=4 * 16, **extractor):
    """The config's RoI head, for the tiny detector's levels."""
    head = ROI_HEAD.to_dict()
    head['bbox_roi_extractor'] |= extractor
    sizes = dict(in_channels=in_channels, num_classes=NUM_CLASSES, topk=2)
    head['bbox_head'] |= sizes | dict(dropout_ratio=0)
    return head


def roi_detector(persons='ground_truth', **overrides):
    """Of the tiny backbone and neck, with random weights."""
    tiny = tiny_detector()
    tiny = {name: tiny[name] for name in ('data_preprocessor', 'backbone', 'neck')}
    config = dict(tiny, type='RoIDetector', roi_head=tiny_roi_head(), persons=persons)
    torch.manual_seed(0)
    model = MODELS.build(config | overrides)
    model.init_weights()
    return model


def two(proposals=None, **metainfo):
    sample = two_persons(**metainfo)
    if proposals is not None:
        bboxes = torch.tensor(proposals, dtype=torch.float32).reshape(-1, 4)
        sample.proposals = InstanceData(bboxes=bboxes)
    return sample


@pytest.mark.parametrize('samples', [(two, nobody), (nobody,)])
@pytest.mark.parametrize('in_bfloat16', [False, True])
@each_source
def test_losses_are_finite_and_reach_every_parameter(persons, in_bfloat16, samples):
    model = roi_detector(persons).train()
    with torch.autocast('cpu', torch.bfloat16, enabled=in_bfloat16):
        losses = losses_of(model, *(make() for make in samples))
        total, log = model.parse_losses(losses)
    total.backward()
    assert total.isfinite() and 'loss_action_cls' in log
    assert_all_learn(model)


def test_clips_without_a_person_do_not_change_the_loss_of_the_others():
    model = roi_detector().eval()  # batch norm of each clip by itself
    data = model.data_preprocessor(batch(two()), training=True)
    alone = model(**data, mode='loss')['loss_action_cls']
    inputs = torch.cat((data['inputs'].flip(-1), data['inputs']))
    together = model(inputs, [nobody(), two()], mode='loss')['loss_action_cls']
    assert_close(together, alone)


def test_it_equals_the_host_detector():
    """mmdet's FastRCNN, as mmaction2 configures it, given the same weights."""
    roi_head = tiny_roi_head(in_channels=32, aligned=True, featmap_stride=32)
    backbone = {**tiny_detector()['backbone'], 'out_indices': (3,)}
    backbone['type'] = 'mmaction.ResNet3dSlowOnly'
    ours = roi_detector('proposals', backbone=backbone, neck=None, roi_head=roi_head)
    train_cfg = ConfigDict(rcnn=roi_head.pop('train_cfg'))
    parts = dict(backbone=backbone, roi_head=ConfigDict(roi_head), train_cfg=train_cfg)
    parts['data_preprocessor'] = dict(type='mmdet.DetDataPreprocessor')
    parts['test_cfg'] = ConfigDict(rcnn=None)
    host = MODELS.build(dict(parts, type='mmdet.FastRCNN')).eval()
    host.load_state_dict(ours.eval().state_dict())

    def sample():
        return two([(6, 5, 40, 60), (20, 0, 70, 33)])

    clip = ours.data_preprocessor(batch(sample()))['inputs']
    losses, expected = (model(clip, [sample()], mode='loss') for model in (ours, host))
    assert losses.keys() == expected.keys()
    assert_close(losses['loss_action_cls'], expected['loss_action_cls'])
    (prediction,) = ours(clip, [sample()], mode='predict')
    proposals, feats = [sample().proposals], host.extract_feat(clip)
    (expected,) = host.roi_head.predict(feats, proposals, [sample()])
    assert_close(prediction.pred_instances.bboxes, expected.bboxes)
    assert_close(prediction.pred_instances.scores[:, 1:], expected.scores[:, 1:])


@each_source
def test_a_batch_is_its_clips_one_by_one(persons):
    model = roi_detector(persons).eval()
    samples = [
        two([(0, 0, 50, 30)]),
        two([], img_shape=(40, 70)),
        two([(0, 0, 200, 30), (5, 5, 9, 9)], img_shape=(40, 70)),
    ]
    data = model.data_preprocessor(batch(*samples))
    with torch.no_grad():
        results = model(**data, mode='predict')
        together = [result.pred_instances.clone() for result in results]
        for clip, (sample, expected) in enumerate(zip(samples, together, strict=True)):
            inputs = data['inputs'][clip : clip + 1]
            (alone,) = model(inputs, [sample], mode='predict')
            for key in ('bboxes', 'scores'):
                assert_close(alone.pred_instances[key], expected[key])
            assert ((expected.bboxes >= 0) & (expected.bboxes <= 1)).all()
            assert not expected.scores[:, 0].any()
        logits = model(**data, mode='tensor')
    assert_close(logits[0][:, 1:].sigmoid(), together[0].scores[:, 1:])


def test_where_the_boxes_at_test_come_from():
    sample = two([(0, 0, 48, 32), (0, 0, 200, 64)])
    (truth,) = roi_detector('ground_truth').test_step(batch(sample))
    bboxes = truth.pred_instances.bboxes * torch.tensor([96.0, 64, 96, 64])
    assert_close(bboxes, sample.gt_instances.bboxes)
    (proposed,) = roi_detector('proposals').test_step(batch(sample))
    assert proposed.pred_instances.bboxes.tolist() == [[0, 0, 0.5, 0.5], [0, 0, 1, 1]]
    model = roi_detector(BRANCH).eval()
    (prediction,) = model.test_step(batch(sample))
    data = model.data_preprocessor(batch(sample))
    with torch.no_grad():
        feats = model.extract_feat(data['inputs'])
        boxes_xyzr = whole_frames(model.person_decoder, [(64, 96)])
        outputs = model.person_decoder(feats, boxes_xyzr, (64, 96))
        (persons,) = model.person_head.predict(outputs.stages, [two()])
    assert_close(prediction.pred_instances.bboxes, persons.bboxes)


def test_what_actions_there_are_does_not_reach_the_person_branch():
    model, sample = roi_detector(BRANCH).eval(), two()
    sample.gt_instances.labels = sample.gt_instances.labels.flip(0)
    losses, expected = losses_of(model, sample), losses_of(model, two())
    names = [name for name in losses if name.startswith('person.')]
    assert len(names) == 2 * 4
    for name in names:
        assert_close(losses[name], expected[name])
