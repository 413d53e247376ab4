"""Laws of the boxes that queries start from."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from tiny import batch, build_detector, data_sample, tiny_detector

from stmixer_mm.errors import UserError, blame
from stmixer_mm.models.boxes import xyxy_to_xyzr, xyzr_to_xyxy
from stmixer_mm.models.decoder.initial_boxes import FrameShapes, grid_bboxes
from stmixer_mm.projects.proposals.proposal_boxes import best_bboxes, regress_ranges
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


# ---------------------------------------------------------------- all of them


def all_kinds():
    yield from (build(f'{kind}Boxes') for kind in ('WholeFrame', 'Grid', 'Learned'))
    yield from map(build_proposals, DENSE_HEADS)


def test_a_box_for_each_query_within_the_frame():
    sizes = shapes((64, 96), (50, 70))
    for boxes in all_kinds():
        boxes_xyzr = boxes.eval().predict(made_up_feats(), sizes)
        assert boxes_xyzr.shape == (2, NUM_QUERIES, 4)
        assert boxes_xyzr.dtype == torch.float32
        assert_in_frame(boxes_xyzr, sizes.img_shapes)


def test_a_batch_is_its_clips_one_by_one():
    feats, img_shapes = made_up_feats(), ((64, 96), (50, 70))
    for boxes in all_kinds():
        together = boxes.eval().predict(feats, shapes(*img_shapes))
        for clip, img_shape in enumerate(img_shapes):
            alone = boxes.predict(
                [feat[clip : clip + 1] for feat in feats], shapes(img_shape)
            )
            torch.testing.assert_close(together[clip], alone[0])


# ------------------------------------------------------------ grid and learned


def test_grid_of_six_boxes():
    boxes_xyzr = build('GridBoxes').predict(made_up_feats(1), shapes((64, 96)))
    expected = torch.tensor(
        [
            [0.0, 0, 32, 32],
            [32, 0, 64, 32],
            [64, 0, 96, 32],
            [0, 32, 32, 64],
            [32, 32, 64, 64],
            [64, 32, 96, 64],
        ]
    )
    torch.testing.assert_close(xyzr_to_xyxy(boxes_xyzr)[0], expected)


@pytest.mark.parametrize('num_boxes', [1, 2, 5, 7, 20, 97, 100])
@pytest.mark.parametrize('aspect', [0.02, 0.75, 1.0, 2.0, 50.0])
def test_grid_tiles_the_frame(num_boxes, aspect):
    bboxes = grid_bboxes(num_boxes, torch.tensor(aspect)).double()
    assert bboxes.shape == (num_boxes, 4)
    width, height = (bboxes[:, 2:] - bboxes[:, :2]).unbind(-1)
    assert (width * height).sum().item() == pytest.approx(1, abs=1e-5)
    overlaps = bbox_overlaps(bboxes, bboxes, mode='iof') - torch.eye(num_boxes)
    assert overlaps.max() < 1e-5
    assert width.max() < 2.01 * width.min()


def test_scaled_boxes_keep_their_place_and_end_at_the_frame():
    small = grid_bboxes(20, torch.tensor(0.7), scale=0.5)
    cells = grid_bboxes(20, torch.tensor(0.7))
    large = grid_bboxes(20, torch.tensor(0.7), scale=3.0)
    torch.testing.assert_close(
        small[:, 2:] - small[:, :2], (cells[:, 2:] - cells[:, :2]) / 2
    )
    torch.testing.assert_close(small[:, :2] + small[:, 2:], cells[:, :2] + cells[:, 2:])
    assert large.min() == 0 and large.max() == 1


def test_learned_boxes_start_as_the_grid_of_a_square_frame():
    learned = build('LearnedBoxes', 20, scale=1.5)
    grid = build('GridBoxes', 20, scale=1.5)
    square = shapes((96, 96), pad_shape=(96, 96))
    torch.testing.assert_close(
        learned.predict(made_up_feats(1), square),
        grid.predict(made_up_feats(1), square),
    )


def test_learned_boxes_stretch_with_the_frame_and_not_with_the_padding():
    learned = build('LearnedBoxes')
    learned.relative_xyzr.data.add_(torch.randn(NUM_QUERIES, 4))
    small = learned.predict(made_up_feats(1), shapes((32, 48)))
    large = learned.predict(made_up_feats(1), shapes((64, 144), pad_shape=(64, 160)))
    torch.testing.assert_close(
        xyzr_to_xyxy(small) * torch.tensor([3, 2, 3, 2]),
        xyzr_to_xyxy(large),
        rtol=1e-4,
        atol=1e-3,
    )


def test_gradients_reach_each_learned_box():
    model = build_detector(
        dict(tiny_detector(), initial_boxes=dict(type='LearnedBoxes'))
    )
    data = batch(data_sample(PERSONS, [(1,), (2, 3), (3,)]), data_sample())
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    sum(losses.values()).backward()
    gradient = model.initial_boxes.relative_xyzr.grad
    assert gradient.abs().sum(dim=-1).min() > 0


@pytest.mark.parametrize('kind', ['GridBoxes', 'LearnedBoxes'])
def test_a_scale_of_nothing(kind):
    with pytest.raises(ValueError, match='scale=0 leaves nothing'):
        build(kind, scale=0)


# ------------------------------------------------------------------- proposals


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


def test_best_boxes_by_score_and_at_least_a_pixel_wide():
    bboxes = torch.tensor([[5.0, 5, 9, 9], [-3, 2, 80, 2.2], [69.5, 50, 75, 60]])
    best = best_bboxes(
        bboxes,
        scores=torch.tensor([0.1, 0.9, 0.5]),
        frame=torch.tensor([0.0, 0, 70, 50]),
        num_boxes=2,
    )
    assert best.tolist() == [[0, 2, 70, 3], [69, 49, 70, 50]]


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


@pytest.mark.parametrize('scope', ['mmaction', 'mmdet'])
@each_head
def test_detector_with_proposals(name, scope):
    # Four levels, whose strides are the default.
    head = dict(type=DENSE_HEADS[name]['type'])
    initial = dict(type='ProposalBoxes', dense_head=head)
    config = dict(tiny_detector(), initial_boxes=initial)
    config['backbone']['type'] = 'mmaction.ResNet3dSlowOnly'
    with DefaultScope.overwrite_default_scope(scope):
        model = build_detector(config)
    data = batch(data_sample(PERSONS, [(1,), (2, 3), (3,)]), data_sample())
    data = model.data_preprocessor(data, training=True)
    losses = model(**data, mode='loss')
    assert any(key.startswith('proposals.') for key in losses)
    total, _logged = model.parse_losses(losses)
    torch.testing.assert_close(total, sum(losses.values()))
    total.backward()
    model.eval()
    with torch.no_grad():
        outputs = model(**data, mode='predict')
    assert all('pred_instances' in output for output in outputs)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    'head, message',
    [
        (
            dict(type='mmdet.FCOSHead', num_classes=80),
            'num_classes=80, but proposals are of one class',
        ),
        (
            dict(type='mmdet.CenterNetHead', feat_channels=16, test_cfg={}),
            "'CenterNetHead' object has no attribute 'prior_generator'",
        ),
        (dict(type='mmdet.RetinaHead'), 'RetinaHead has no train_cfg'),
    ],
)
def test_heads_that_cannot_propose(head, message):
    with pytest.raises(UserError, match=message), blame('The config', 'correct it'):
        build('ProposalBoxes', dense_head=head)


@pytest.mark.parametrize(
    'head',
    [dict(type='mmdet.RPNHead'), dict(DENSE_HEADS['fcos'], strides=(4, 16))],
    ids=['number of levels', 'a stride'],
)
def test_strides_that_do_not_fit_the_levels(head):
    boxes = build('ProposalBoxes', dense_head=head)
    sentence = (
        r'dense head has strides \[.*\] but the levels have \(4.0, 8.0\); set its'
    )
    with pytest.raises(ValueError, match=sentence):
        boxes.predict(made_up_feats(), shapes((64, 96), (64, 96)))
