"""Laws of queries that start from the proposals of a dense head."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from tiny import data_sample

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import xyxy_to_xyzr, xyzr_to_xyxy
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.projects.proposals.proposal_boxes import regress_ranges
from stmixer_mm.registry import MODELS

NUM_QUERIES = 6
CHANNELS = 16
STRIDES = (4, 8)
PAD_SHAPE = (64, 96)
DENSE_HEADS = {
    'rpn': dict(type='mmdet.RPNHead', anchor_generator=dict(strides=STRIDES)),
    'fcos': dict(type='mmdet.FCOSHead', strides=STRIDES, stacked_convs=1),
    'atss': dict(
        type='mmdet.ATSSHead', anchor_generator=dict(strides=STRIDES), stacked_convs=1
    ),
}
PERSONS = [(5, 5, 40, 60), (50, 10, 90, 50), (10, 2, 90, 62)]  # for both levels

each_head = pytest.mark.parametrize('name', DENSE_HEADS)


def build(type_name, num_queries=NUM_QUERIES, **options):
    torch.manual_seed(0)
    boxes = MODELS.build(
        dict(type=type_name, **options),
        default_args=dict(num_queries=num_queries, embed_dims=CHANNELS),
    )
    boxes.init_weights()
    return boxes


def build_proposals(name, **options):
    head = DENSE_HEADS[name] | options
    return build('ProposalBoxes', dense_head=head)


def made_up_feats(clips=2, pad_shape=PAD_SHAPE):
    generator = torch.Generator().manual_seed(2)
    return [
        torch.randn(
            clips,
            CHANNELS,
            4,
            pad_shape[0] // stride,
            pad_shape[1] // stride,
            generator=generator,
        ).requires_grad_()
        for stride in STRIDES
    ]


def shapes(*img_shapes, pad_shape=PAD_SHAPE):
    return FrameShapes(torch.tensor(img_shapes), pad_shape)


def samples(*img_shapes):
    """Persons in the first clip, nobody in the others."""
    return [
        data_sample(PERSONS, [(1,), (2,), (3,)], img_shape)
        if clip == 0
        else data_sample(img_shape=img_shape)
        for clip, img_shape in enumerate(img_shapes)
    ]


def assert_in_frame(boxes_xyzr, img_shapes):
    bboxes = xyzr_to_xyxy(boxes_xyzr)
    frame = img_shapes.flip(-1)[:, None]
    assert (bboxes[..., :2] >= -1e-3).all()
    assert (bboxes[..., 2:] <= frame + 1e-3).all()
    assert (bboxes[..., 2:] - bboxes[..., :2] >= 1 - 1e-3).all()


@each_head
def test_a_box_for_each_query_in_a_batch_as_in_its_clips_one_by_one(name):
    boxes, img_shapes = build_proposals(name).eval(), ((64, 96), (50, 70))
    feats, sizes = made_up_feats(), shapes(*img_shapes)
    together = boxes.predict(feats, sizes)
    assert together.shape == (2, NUM_QUERIES, 4) and together.dtype == torch.float32
    assert_in_frame(together, sizes.img_shapes)
    for clip, img_shape in enumerate(img_shapes):
        alone = boxes.predict(
            [feat[clip : clip + 1] for feat in feats], shapes(img_shape)
        )
        torch.testing.assert_close(together[clip], alone[0])


@each_head
def test_proposals_train_the_head_and_the_maps_but_not_through_the_boxes(name):
    boxes = build_proposals(name).train()
    feats, img_shapes = made_up_feats(), ((64, 96), (50, 70))
    given = samples(*img_shapes)
    before = [sample.clone() for sample in given]
    losses, boxes_xyzr = boxes.loss_and_predict(feats, given, shapes(*img_shapes))
    assert all(key.startswith('proposals.loss_') for key in losses)
    assert all(value.dim() == 0 for value in losses.values())
    assert not boxes_xyzr.requires_grad
    sum(losses.values()).backward()
    for parameter in boxes.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any()
    keyframe = 2
    for feat in feats:
        assert feat.grad[:, :, keyframe].any()
        feat.grad[:, :, keyframe] = 0
        assert not feat.grad.any()
    for sample, old in zip(given, before, strict=True):
        assert sample.metainfo == old.metainfo
        assert torch.equal(sample.gt_instances.labels, old.gt_instances.labels)


@each_head
def test_losses_and_proposals_equal_the_hosts(name):
    boxes = build_proposals(name).train()
    feats, img_shapes = made_up_feats(), ((64, 96), (64, 96))
    given = samples(*img_shapes)
    torch.manual_seed(1)  # RPN samples anchors.
    losses, boxes_xyzr = boxes.loss_and_predict(feats, given, shapes(*img_shapes))

    hosts = []
    for sample in given:
        host = DetDataSample(
            metainfo=dict(
                img_shape=(64, 96),
                pad_shape=(64, 96),
                batch_input_shape=(64, 96),
                scale_factor=(1.0, 1.0),
            )
        )
        count = len(sample.gt_instances)
        host.gt_instances = InstanceData(
            bboxes=sample.gt_instances.bboxes,
            labels=torch.zeros(count, dtype=torch.long),
        )
        hosts.append(host)
    torch.manual_seed(1)
    expected, found = boxes.dense_head.loss_and_predict(
        tuple(feat[:, :, 2] for feat in feats), hosts
    )
    for key, value in expected.items():
        value = sum(value) if isinstance(value, list) else value
        torch.testing.assert_close(losses[f'proposals.{key}'], value)
    for clip, clip_found in enumerate(found):
        count = min(len(clip_found), NUM_QUERIES)
        assert count > 0
        sizes = clip_found.bboxes[:, 2:] - clip_found.bboxes[:, :2]
        assert sizes.min() > 1
        torch.testing.assert_close(
            boxes_xyzr[clip, :count], xyxy_to_xyzr(clip_found.bboxes[:count])
        )


@each_head
def test_no_true_box_in_the_batch(name):
    boxes = build_proposals(name).train()
    empty = [data_sample(), data_sample()]
    losses, boxes_xyzr = boxes.loss_and_predict(
        made_up_feats(), empty, shapes((64, 96), (64, 96))
    )
    sum(losses.values()).backward()
    assert boxes_xyzr.isfinite().all()
    for parameter in boxes.parameters():
        assert parameter.grad.isfinite().all()


@each_head
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(name, dtype):
    boxes = build_proposals(name).train()
    img_shapes = ((64, 96), (50, 70))
    with torch.autocast('cpu', dtype=dtype):
        losses, boxes_xyzr = boxes.loss_and_predict(
            made_up_feats(), samples(*img_shapes), shapes(*img_shapes)
        )
    assert boxes_xyzr.dtype == torch.float32
    assert_in_frame(boxes_xyzr, torch.tensor(img_shapes))
    sum(losses.values()).backward()
    for parameter in boxes.parameters():
        assert parameter.grad.isfinite().all()


@each_head
def test_the_head_learns_where_a_person_is(name):
    boxes = build_proposals(name).train()
    feats = [feat.detach() for feat in made_up_feats(1)]
    truth, sizes = torch.tensor([[18.0, 10, 46, 44]]), shapes((64, 96))
    given = [data_sample(truth.tolist(), [(1,)])]
    optimizer = torch.optim.AdamW(boxes.parameters(), lr=5e-3)

    def overlap():
        boxes_xyzr = boxes.eval().predict(feats, sizes)
        boxes.train()
        return bbox_overlaps(xyzr_to_xyxy(boxes_xyzr[0, :1]), truth).item()

    before = overlap()
    for _ in range(60):
        losses, _boxes_xyzr = boxes.loss_and_predict(feats, given, sizes)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert before < 0.6 < 0.8 < overlap()


def test_fewer_proposals_than_queries_leave_the_whole_frame():
    boxes = build_proposals('rpn', test_cfg=dict(max_per_img=2)).eval()
    boxes_xyzr = boxes.predict(made_up_feats(1), shapes((50, 70)))
    bboxes = xyzr_to_xyxy(boxes_xyzr)[0]
    whole = torch.tensor([0.0, 0, 70, 50])
    torch.testing.assert_close(bboxes[2:], whole.expand(NUM_QUERIES - 2, 4))
    assert (bboxes[:2] - whole).abs().amax(dim=-1).min() > 1


def test_proposals_are_unmoved_by_padding():
    boxes = build_proposals('rpn').eval()
    feats = made_up_feats(1)
    boxes.dense_head.rpn_cls.bias.data.fill_(1.0)  # The padding scores high, too.
    padded = [
        torch.nn.functional.pad(feat, (0, 64 // stride, 0, 32 // stride))
        for feat, stride in zip(feats, STRIDES, strict=True)
    ]
    torch.testing.assert_close(
        boxes.predict(padded, shapes((64, 96), pad_shape=(96, 160))),
        boxes.predict(feats, shapes((64, 96))),
    )


@pytest.mark.parametrize(
    'head',
    [
        dict(DENSE_HEADS['fcos'], norm_on_bbox=True),
        dict(
            type='mmdet.VFNetHead',
            strides=STRIDES,
            regress_ranges=regress_ranges(STRIDES),
            feat_channels=CHANNELS,
            norm_cfg=dict(type='GN', num_groups=4),
            anchor_generator=dict(
                type='AnchorGenerator',
                ratios=[1.0],
                octave_base_scale=8,
                scales_per_octave=1,
                center_offset=0.0,
                strides=STRIDES,
            ),
            train_cfg=dict(
                assigner=dict(type='ATSSAssigner', topk=9),
                allowed_border=-1,
                pos_weight=-1,
            ),
        ),
    ],
    ids=['FCOS with norm_on_bbox', 'VFNet'],
)
def test_heads_that_say_something_else_in_training(head):
    boxes = build('ProposalBoxes', dense_head=head).train()
    sizes = shapes((64, 96), (64, 96))
    given = samples((64, 96), (64, 96))
    losses, in_training = boxes.loss_and_predict(made_up_feats(), given, sizes)
    assert all(loss.requires_grad for loss in losses.values())
    assert boxes.dense_head.training
    torch.testing.assert_close(
        in_training, boxes.eval().predict(made_up_feats(), sizes)
    )


def test_nested_settings_change_defaults_one_by_one():
    boxes = build_proposals(
        'rpn',
        anchor_generator=dict(strides=STRIDES, scales=[2, 4]),
        loss_bbox=dict(type='GIoULoss'),
        test_cfg=dict(nms=dict(type='soft_nms', iou_threshold=0.3)),
    )
    head = boxes.dense_head
    assert head.num_base_priors == 6
    assert not hasattr(head.loss_bbox, 'beta')
    assert head.test_cfg.nms == dict(type='soft_nms', iou_threshold=0.3)
    assert head.test_cfg.max_per_img == NUM_QUERIES
    # mmdet's FCOS has strides 8 to 128, and 64 to 512 as bounds.
    assert regress_ranges((8, 16, 32, 64, 128)) == (
        (-1, 64),
        (64, 128),
        (128, 256),
        (256, 512),
        (512, 1e8),
    )


@pytest.mark.parametrize(
    'head',
    [
        dict(type='mmdet.FCOSHead', num_classes=80),
        dict(type='mmdet.RetinaHead'),
        dict(type='mmdet.RPNHead'),
        dict(DENSE_HEADS['fcos'], strides=(4, 16)),
    ],
    ids=['classes', 'no train_cfg', 'number of levels', 'a stride'],
)
def test_heads_that_do_not_fit(head):
    with pytest.raises(UserError):
        build('ProposalBoxes', dense_head=head).predict(
            made_up_feats(), shapes((64, 96), (64, 96))
        )
