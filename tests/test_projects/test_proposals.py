"""Laws of queries that start from the proposals of a dense head."""

import pytest
import torch
from every_config import CONFIGS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from tiny import data_sample
from torch.testing import assert_close

from stmixer_mm.models.boxes import xyxy_to_xyzr, xyzr_to_xyxy
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.registry import MODELS

NUM_QUERIES, CHANNELS = 6, 16
STRIDES, PAD_SHAPE = (4, 8), (64, 96)
PERSONS = [(5, 5, 40, 60), (50, 10, 90, 50), (10, 2, 90, 62)]  # for both levels

# Priors of other names, and tuples of outputs for each level.
SQUARES = dict(type='AnchorGenerator', ratios=[1.0], strides=STRIDES)
APPROX = dict(type='ApproxMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)
SABL = dict(
    type='mmdet.SABLRetinaHead',
    approx_anchor_generator=SQUARES | dict(octave_base_scale=4, scales_per_octave=1),
    square_anchor_generator=SQUARES | dict(scales=[4]),
    train_cfg=dict(assigner=APPROX, allowed_border=-1, pos_weight=-1),
)
each_head = pytest.mark.parametrize('name', ['rpn', 'fcos', 'atss', 'sabl'])


def build_proposals(name, **options):
    """The first boxes of an experiment, with a smaller head."""
    file = f'stmixer_tiny-{name.replace("sabl", "rpn")}-boxes_toy.py'
    boxes = Config.fromfile(CONFIGS / 'experiments' / file).model.initial_boxes
    if name == 'sabl':
        boxes.dense_head = Config(SABL)
    head = boxes.dense_head
    head.update(feat_channels=CHANNELS, **options)
    if name != 'rpn':
        head.update(stacked_convs=1, norm_cfg=dict(type='GN', num_groups=CHANNELS))
    sizes = dict(num_queries=NUM_QUERIES, embed_dims=CHANNELS)
    boxes = MODELS.build(boxes, default_args=sizes)
    boxes.init_weights()
    return boxes


def made_up_feats(clips=2):
    generator = torch.Generator().manual_seed(2)
    sizes = [[pixels // stride for pixels in PAD_SHAPE] for stride in STRIDES]
    return [
        torch.randn(clips, CHANNELS, 4, *size, generator=generator).requires_grad_()
        for size in sizes
    ]


def shapes(*img_shapes, pad_shape=PAD_SHAPE):
    return FrameShapes(torch.tensor(img_shapes), pad_shape)


TWO_CLIPS = shapes((64, 96), (50, 70))


def samples(img_shape=(50, 70)):
    """Persons in the first clip, nobody in the other, of this size."""
    return [data_sample(PERSONS, [(1,), (2,), (3,)]), data_sample(img_shape=img_shape)]


def assert_in_frame(boxes_xyzr, img_shapes):
    top_left, bottom_right = xyzr_to_xyxy(boxes_xyzr).split(2, dim=-1)
    assert (top_left >= -1e-3).all() and (bottom_right - top_left >= 1 - 1e-3).all()
    assert (bottom_right <= img_shapes.flip(-1)[:, None] + 1e-3).all()


@each_head
def test_a_box_for_each_query_in_a_batch_as_in_its_clips_one_by_one(name):
    boxes, feats = build_proposals(name).eval(), made_up_feats()
    together = boxes.predict(feats, TWO_CLIPS)
    assert together.shape == (2, NUM_QUERIES, 4) and together.dtype == torch.float32
    assert_in_frame(together, TWO_CLIPS.img_shapes)
    for clip, img_shape in enumerate(TWO_CLIPS.img_shapes.tolist()):
        clip_feats = [feat[clip : clip + 1] for feat in feats]
        assert_close(together[clip], boxes.predict(clip_feats, shapes(img_shape))[0])


@each_head
def test_proposals_train_the_head_and_the_maps_but_not_through_the_boxes(name):
    boxes, feats, truth = build_proposals(name), made_up_feats(), samples()
    losses, boxes_xyzr = boxes.loss_and_predict(feats, truth, TWO_CLIPS)
    assert not boxes_xyzr.requires_grad
    sum(losses.values()).backward()
    for parameter in boxes.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any()
    for feat in feats:
        of_frames = feat.grad.abs().sum(dim=(0, 1, 3, 4))
        assert (of_frames > 0).tolist() == [False, False, True, False]  # the keyframe
    assert torch.equal(truth[0].gt_instances.labels, samples()[0].gt_instances.labels)


@each_head
def test_losses_and_proposals_equal_the_hosts(name):
    boxes, feats = build_proposals(name), made_up_feats()
    truth, frames = samples(PAD_SHAPE), shapes(PAD_SHAPE, PAD_SHAPE)
    torch.manual_seed(1)  # RPN samples anchors.
    losses, boxes_xyzr = boxes.loss_and_predict(feats, truth, frames)
    metainfo = dict.fromkeys(('img_shape', 'pad_shape', 'batch_input_shape'), PAD_SHAPE)
    hosts = []
    for sample in truth:
        bboxes = sample.gt_instances.bboxes
        hosts.append(DetDataSample(metainfo=metainfo | dict(scale_factor=(1.0, 1.0))))
        persons = InstanceData(bboxes=bboxes, labels=torch.zeros(len(bboxes)).long())
        hosts[-1].gt_instances = persons
    torch.manual_seed(1)
    expected, proposals = boxes.dense_head.loss_and_predict(
        tuple(feat[:, :, 2] for feat in feats), hosts
    )
    for key, value in expected.items():
        value = sum(value) if isinstance(value, list) else value
        assert_close(losses[f'proposals.{key}'], value)
    for ours, host in zip(boxes_xyzr, proposals, strict=True):
        count = min(len(host), NUM_QUERIES)
        assert count > 0
        assert_close(ours[:count], xyxy_to_xyzr(host.bboxes[:count]))


@each_head
@pytest.mark.parametrize('dtype', [torch.bfloat16, None])
def test_autocast_and_nobody(name, dtype):
    boxes = build_proposals(name)
    truth = samples() if dtype else [data_sample(), data_sample()]
    with torch.autocast('cpu', dtype=dtype or torch.bfloat16, enabled=bool(dtype)):
        losses, boxes_xyzr = boxes.loss_and_predict(made_up_feats(), truth, TWO_CLIPS)
    assert boxes_xyzr.dtype == torch.float32
    assert_in_frame(boxes_xyzr, TWO_CLIPS.img_shapes)
    sum(losses.values()).backward()
    for parameter in boxes.parameters():
        assert parameter.grad.isfinite().all()


def test_fewer_proposals_than_queries_leave_the_whole_frame():
    boxes = build_proposals('rpn', test_cfg=dict(max_per_img=2)).eval()
    bboxes = xyzr_to_xyxy(boxes.predict(made_up_feats(1), shapes((50, 70))))[0]
    frame_bbox = torch.tensor([0.0, 0, 70, 50])
    assert_close(bboxes[2:], frame_bbox.expand(NUM_QUERIES - 2, 4))
    assert (bboxes[:2] - frame_bbox).abs().amax(dim=-1).min() > 1


def test_proposals_are_unmoved_by_padding():
    boxes, feats = build_proposals('rpn').eval(), made_up_feats(1)
    boxes.dense_head.rpn_cls.bias.data.fill_(1.0)  # the padding scores high, too
    padded = [
        torch.nn.functional.pad(feat, (0, 64 // stride, 0, 32 // stride))
        for feat, stride in zip(feats, STRIDES, strict=True)
    ]
    ours = boxes.predict(padded, shapes(PAD_SHAPE, pad_shape=(96, 160)))
    assert_close(ours, boxes.predict(feats, shapes(PAD_SHAPE)))


def test_a_head_that_yields_something_else_in_training():
    boxes = build_proposals('fcos', norm_on_bbox=True)
    _, in_training = boxes.loss_and_predict(made_up_feats(), samples(), TWO_CLIPS)
    assert boxes.dense_head.training
    at_test = boxes.eval().predict(made_up_feats(), TWO_CLIPS)
    assert_close(in_training, at_test)
