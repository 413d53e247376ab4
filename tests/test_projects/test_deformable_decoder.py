"""The deformable baseline: against mmdet's layer, and the laws of all decoders."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.layers import DeformableDetrTransformerDecoderLayer
from tiny import (
    NUM_CLASSES,
    batch,
    build_detector,
    data_sample,
    tiny_detector,
    whole_frames,
)

from stmixer_mm.models.boxes import sine_position_code, xyxy_to_xyzr, xyzr_to_xyxy
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.decoder.stage import Queries
from stmixer_mm.projects.deformable import deformable_stage
from stmixer_mm.projects.deformable.deformable_stage import (
    DeformableBranch,
    flatten_feats,
    place_points,
)
from stmixer_mm.registry import MODELS

STRIDES = (4, 8)
PAD_SHAPE = (64, 96)
C, Q, T = 16, 5, 3
each_memory = pytest.mark.parametrize('memory', ['keyframe', 'time'])


def deformable_decoder(**overrides) -> dict:
    config = dict(type='DeformableDecoder', num_frames=T, num_levels=len(STRIDES))
    config |= dict(embed_dims=C, num_queries=Q, num_stages=2, num_heads=2)
    config |= dict(feedforward_channels=32, num_points=3, num_classes=NUM_CLASSES)
    return config | overrides


def make_decoder(*, still_boxes=False, **overrides):
    torch.manual_seed(0)
    decoder = MODELS.build(deformable_decoder(**overrides))
    decoder.init_weights()
    for name, parameter in decoder.named_parameters():
        if not (still_boxes and ('box_branch' in name or 'offsets' in name)):
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return decoder


def make_feats(batch_size=2, frames=T):
    generator = torch.Generator().manual_seed(1)
    sizes = [[pixels // stride for pixels in PAD_SHAPE] for stride in STRIDES]
    return [
        torch.randn(batch_size, C, frames, *size, generator=generator) for size in sizes
    ]


def make_boxes(batch_size=2):
    """Well inside the frame, no two alike."""
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(batch_size, Q, 4, generator=generator) * 12
    return xyxy_to_xyzr(corners + torch.tensor([12.0, 12.0, 60.0, 36.0]))


def run(decoder, feats, pad_shape=PAD_SHAPE, boxes_xyzr=None, **inputs):
    if boxes_xyzr is None:
        boxes_xyzr = whole_frames(decoder, [PAD_SHAPE, (50, 90)][: len(feats[0])])
    return decoder(feats, boxes_xyzr, pad_shape=pad_shape, **inputs).stages


def assert_same(outputs, expected, tolerance=1e-5):
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(
            tuple(ours), tuple(theirs), rtol=tolerance, atol=tolerance
        )


def test_a_branch_is_the_decoder_layer_of_mmdet():
    """The same parameters by name, and with them the same queries."""
    sizes = dict(embed_dims=C, num_heads=2)
    points = dict(num_planes=2, num_points=3)
    branch = DeformableBranch(**sizes, **points, feedforward_channels=32, dropout=0.1)
    for parameter in branch.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layer = DeformableDetrTransformerDecoderLayer(
        # What dropout=0.1 stands for, which would change mmcv's default for others.
        self_attn_cfg=sizes
        | dict(attn_drop=0.1, dropout_layer=dict(type='Dropout', drop_prob=0.1)),
        cross_attn_cfg=sizes | dict(num_levels=2, num_points=3, dropout=0.1),
        ffn_cfg=dict(embed_dims=C, feedforward_channels=32, ffn_drop=0.1),
    )
    layer.load_state_dict(branch.state_dict())
    modes = [module.p for module in branch.modules() if hasattr(module, 'p')]
    assert modes == [module.p for module in layer.modules() if hasattr(module, 'p')]
    planes = flatten_feats([feat[:, :, :1] for feat in make_feats()], STRIDES)
    boxes, queries = make_boxes(), torch.randn(2, Q, C)
    code = sine_position_code(boxes, C)
    bboxes = xyzr_to_xyxy(boxes) / torch.tensor((96, 64, 96, 64))
    sizes = bboxes[..., 2:] - bboxes[..., :2]
    reference = torch.cat((bboxes[..., 2:] - sizes / 2, sizes), dim=-1)
    expected = layer.eval()(
        queries,
        query_pos=code,
        value=planes.values,
        reference_points=reference[:, :, None].repeat(1, 1, 2, 1),
        spatial_shapes=planes.layout.sizes_tensor,
        level_start_index=planes.layout.starts,
    )
    ours = branch.eval()(queries, code, boxes, planes)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_points_of_the_last_rank_reach_the_edge_of_the_box():
    boxes = xyxy_to_xyzr(torch.tensor([[[10.0, 20.0, 50.0, 44.0]]]))
    extents = torch.tensor([[96.0, 64.0], [104.0, 64.0]])
    offsets = torch.zeros(1, 1, 2, 2, 4, 2)
    offsets[:, :, 0], offsets[:, :, 1] = -4, 4
    pixels = place_points(offsets, boxes, extents) * extents[:, None]
    corners = torch.tensor([[10.0, 20.0], [50.0, 44.0]])[:, None].repeat(1, 2, 1)
    torch.testing.assert_close(pixels[0, 0, :, :, 0], corners)


def test_flat_planes_are_the_frames_of_the_levels():
    feats = make_feats()
    flat = flatten_feats(feats, STRIDES)
    assert flat.extents.tolist() == [[96, 64]] * 6
    ends = [*flat.layout.starts.tolist()[1:], flat.values.size(1)]
    for number, (start, end) in enumerate(zip(flat.layout.starts, ends, strict=True)):
        level, frame = divmod(number, T)
        unflat = flat.values[:, start:end].transpose(1, 2)
        expected = feats[level][:, :, frame]
        assert torch.equal(unflat.unflatten(-1, flat.layout.sizes[number]), expected)
    # At stride 8, a clip of 100 pixels has 13 cells: 104 pixels.
    assert flatten_feats([torch.zeros(1, C, 1, 8, 13)], [8]).extents.tolist() == [
        [104, 64]
    ]


@each_memory
def test_which_frames_are_read(memory):
    decoder, feats = make_decoder(memory=memory), make_feats()
    before = run(decoder, feats)[0]
    for frame in range(T):
        changed = [feat.clone() for feat in feats]
        for feat in changed:
            feat[:, :, frame] += 1
        after = run(decoder, changed)[0]
        persons = not torch.allclose(before.person_logits, after.person_logits)
        actions = not torch.allclose(before.action_logits, after.action_logits)
        assert persons == (frame == T // 2)
        assert actions == (frame == T // 2 or memory == 'time')


@each_memory
@pytest.mark.parametrize('frames', [1, T])
def test_a_batch_is_its_clips_one_by_one(memory, frames):
    decoder = make_decoder(memory=memory, num_frames=frames)
    feats, boxes = make_feats(frames=frames), make_boxes()
    together = run(decoder, feats, boxes_xyzr=boxes)
    for clip in range(2):
        one = slice(clip, clip + 1)
        alone = run(decoder, [feat[one] for feat in feats], boxes_xyzr=boxes[one])
        ours = [[values[one] for values in output] for output in together]
        assert_same(ours, alone, 1e-4)


@each_memory
def test_padding_does_not_matter_to_boxes_inside(memory):
    decoder = make_decoder(memory=memory, still_boxes=True)
    feats, boxes = make_feats(), make_boxes()
    padded = [
        F.pad(feat, (0, 32 // stride, 0, 64 // stride), value=7.0)
        for feat, stride in zip(feats, STRIDES, strict=True)
    ]
    ours = run(decoder, padded, pad_shape=(128, 128), boxes_xyzr=boxes)
    assert_same(ours, run(decoder, feats, boxes_xyzr=boxes), 1e-4)


@each_memory
def test_blocked_queries_are_not_seen(memory):
    decoder = make_decoder(memory=memory)
    feats, boxes = make_feats(), make_boxes()
    expected = run(decoder, feats, boxes_xyzr=boxes)
    further = Queries(torch.randn(2, 4, C), torch.randn(2, 4, C))
    blocked = torch.zeros(4, 4, dtype=torch.bool)

    def own(hidden):
        extra = ExtraQueries(further, make_boxes()[:, :4], blocked, hidden)
        outputs = run(decoder, feats, boxes_xyzr=boxes, extras=[extra])
        return [[values[:, :Q] for values in output] for output in outputs]

    assert_same(own(torch.ones(4, dtype=torch.bool)), expected)
    seen = own(torch.zeros(4, dtype=torch.bool))
    assert not torch.allclose(seen[0][0], expected[0].person_logits, atol=1e-3)


@pytest.mark.parametrize('with_cp', [False, True])
@each_memory
def test_gradients_reach_every_parameter(memory, with_cp):
    decoder = make_decoder(memory=memory, with_cp=with_cp)
    feats = [feat.requires_grad_() for feat in make_feats()]
    outputs = run(decoder, feats)
    sum(values.square().sum() for output in outputs for values in output).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    for feat in feats:
        read = feat.grad.flatten(3).any(dim=-1).any(dim=1).all(dim=0)
        assert read.tolist() == [memory == 'time', True, memory == 'time']


def test_initial_stages_read_around_the_boxes_and_leave_them_alone():
    decoder = MODELS.build(deformable_decoder(memory='time'))
    fresh = decoder.stages[0].temporal.cross_attn.sampling_offsets.bias.clone()
    decoder.init_weights()
    whole = whole_frames(decoder, [PAD_SHAPE] * 2)
    for output in run(decoder, make_feats(), boxes_xyzr=whole):
        torch.testing.assert_close(output.bboxes, xyzr_to_xyxy(whole))
    for stage in decoder.stages:
        attention = stage.temporal.cross_attn
        assert not attention.sampling_offsets.weight.any()
        assert not attention.attention_weights.weight.any()
        assert torch.equal(attention.sampling_offsets.bias, fresh)
        reach = fresh.view(-1, 3, 2).abs().amax(dim=(0, 2))
        torch.testing.assert_close(reach, torch.tensor([1.0, 2.0, 3.0]))


@each_memory
def test_autocast_changes_little(memory, monkeypatch):
    """It samples in full precision: mmcv's CUDA operator does not take bfloat16."""
    attend, dtypes = deformable_stage.attend, []

    def spy(values, layout, points, weights):
        dtypes.extend(each.dtype for each in (values, points, weights))
        return attend(values, layout, points, weights)

    decoder, feats = make_decoder(memory=memory), make_feats()
    with torch.no_grad():
        expected = run(decoder, feats)
        monkeypatch.setattr(deformable_stage, 'attend', spy)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            outputs = run(decoder, feats)
    assert dtypes == [torch.float32] * 2 * 2 * 3
    for output, full in zip(outputs, expected, strict=True):
        assert output.bboxes.dtype == torch.float32
        torch.testing.assert_close(output.bboxes, full.bboxes, rtol=0.05, atol=2)
        for ours, theirs in zip(output[:2], full[:2], strict=True):
            torch.testing.assert_close(ours.float(), theirs, rtol=0.05, atol=0.05)


@each_memory
def test_it_takes_the_place_of_the_decoder_in_the_detector(memory):
    """Empty ground truth among it."""
    decoder = deformable_decoder(memory=memory, num_frames=2, num_levels=4)
    model = build_detector(tiny_detector(decoder)).train()
    samples = [data_sample([(5, 5, 40, 60)], [(1, 2)]), data_sample()]
    data = model.data_preprocessor(batch(*samples), training=True)
    sum(model(**data, mode='loss').values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for sample in model.eval().test_step(batch(*samples)):
        assert sample.pred_instances.scores.size(1) == NUM_CLASSES


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(num_levels=3), '2 levels but the decoder has num_levels=3'),
        (dict(num_frames=2), 'num_frames=2'),
    ],
)
def test_levels_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(make_decoder(**arguments), make_feats())


def test_stages_compile():
    options = dict(backend='eager', fullgraph=True)
    feats = make_feats(1, frames=1)
    compiled, eager = (
        run(make_decoder(num_stages=1, num_frames=1, compile_stages=compiling), feats)
        for compiling in (options, False)
    )
    assert_same(compiled, eager)
