"""The deformable baseline: against mmdet's layer, and the laws of all decoders."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.layers import DeformableDetrTransformerDecoderLayer
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from tiny import tiny_deformable_decoder, whole_frames
from torch.testing import assert_close

from stmixer_mm.models.boxes import (
    position_wavelengths,
    sine_position_code,
    xyxy_to_xyzr,
    xyzr_to_xyxy,
)
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.projects.deformable import deformable_stage
from stmixer_mm.projects.deformable.deformable_stage import (
    DeformableLayer,
    flatten_feats,
)
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import Queries

STRIDES = (4, 8)
PAD_SHAPE = (64, 96)
C, Q, T = 16, 5, 3
each_memory = pytest.mark.parametrize('memory', ['keyframe', 'time'])


def make_decoder(*, still_boxes=False, noise=0.05, **overrides):
    torch.manual_seed(0)
    settings = dict(num_frames=T, num_levels=len(STRIDES), num_points=3) | overrides
    decoder = MODELS.build(tiny_deformable_decoder(**settings))
    decoder.init_weights()
    for name, parameter in decoder.named_parameters():
        if not (still_boxes and ('box_branch' in name or 'offsets' in name)):
            parameter.data.add_(noise * torch.randn_like(parameter))
    return decoder


def make_feats():
    generator = torch.Generator().manual_seed(1)
    sizes = [[pixels // stride for pixels in PAD_SHAPE] for stride in STRIDES]
    return [torch.randn(2, C, T, *size, generator=generator) for size in sizes]


def make_boxes():
    """Well inside the frame, no two alike."""
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(2, Q, 4, generator=generator) * 12
    return xyxy_to_xyzr(corners + torch.tensor([12.0, 12.0, 60.0, 36.0]))


def run(decoder, feats, pad_shape=PAD_SHAPE, boxes_xyzr=None, **inputs):
    if boxes_xyzr is None:
        boxes_xyzr = whole_frames(decoder, [PAD_SHAPE, (50, 90)])
    return decoder(feats, boxes_xyzr, pad_shape=pad_shape, **inputs).stages


def assert_same(outputs, expected, tolerance=1e-5):
    for ours, theirs in zip(outputs, expected, strict=True):
        assert_close(tuple(ours), tuple(theirs), rtol=tolerance, atol=tolerance)


def test_a_layer_reads_as_that_of_mmdet():
    """The same parameters by name, and with them the same queries."""
    widths, sizes = dict(embed_dims=C, num_heads=2), dict(num_levels=2, num_points=3)
    ffn_cfg = dict(embed_dims=C, feedforward_channels=32)
    settings = dict(
        self_attn_cfg=widths, cross_attn_cfg=widths | sizes, ffn_cfg=ffn_cfg
    )
    layer = DeformableLayer(**settings)
    host = DeformableDetrTransformerDecoderLayer(**settings).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    host.load_state_dict(layer.state_dict())
    planes = flatten_feats([feat[:, :, :1] for feat in make_feats()], STRIDES)
    boxes, queries = make_boxes(), torch.randn(2, Q, C)
    code = sine_position_code(boxes, position_wavelengths(C))
    bboxes = xyzr_to_xyxy(boxes) / torch.tensor((96, 64, 96, 64))
    reference = bbox_xyxy_to_cxcywh(bboxes)
    expected = host(
        queries,
        query_pos=code,
        value=planes.values,
        reference_points=reference[:, :, None].repeat(1, 1, 2, 1),
        spatial_shapes=torch.tensor(planes.layout.sizes),
        level_start_index=torch.tensor([0, 16 * 24]),
    )
    ours = layer(queries, query_pos=code, boxes_xyzr=boxes, planes=planes)
    assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@each_memory
def test_which_frames_are_read(memory):
    decoder, feats = make_decoder(memory=memory), make_feats()
    original = run(decoder, feats)[0]
    for frame in range(T):
        changed = [feat.clone() for feat in feats]
        for feat in changed:
            feat[:, :, frame] += 1
        output = run(decoder, changed)[0]
        persons = not torch.allclose(original.person_logits, output.person_logits)
        actions = not torch.allclose(original.action_logits, output.action_logits)
        assert persons == (frame == T // 2)
        assert actions == (frame == T // 2 or memory == 'time')


@each_memory
def test_a_batch_is_its_clips_whatever_their_padding(memory):
    decoder = make_decoder(memory=memory, still_boxes=True)
    feats, boxes = make_feats(), make_boxes()
    together = run(decoder, feats, boxes_xyzr=boxes)
    for clip in range(2):
        clip_feats = [feat[clip : clip + 1] for feat in feats]
        alone = run(decoder, clip_feats, boxes_xyzr=boxes[clip : clip + 1])
        ours = [[values[clip : clip + 1] for values in output] for output in together]
        assert_same(ours, alone, 1e-4)
    padded = [
        F.pad(feat, (0, 32 // stride, 0, 64 // stride), value=7.0)
        for feat, stride in zip(feats, STRIDES, strict=True)
    ]
    assert_same(run(decoder, padded, (128, 128), boxes), together, 1e-4)


def test_blocked_queries_are_not_seen():
    decoder, feats, boxes = make_decoder(), make_feats(), make_boxes()
    expected = run(decoder, feats, boxes_xyzr=boxes)
    further = Queries(torch.randn(2, 4, C), torch.randn(2, 4, C))
    blocked, persons = torch.zeros(4, 4).bool(), torch.zeros(2, 4).long()

    def learned_outputs(hidden):
        queries = further, boxes[:, :4], blocked, hidden.bool(), persons
        extra = ExtraQueries(*queries, prefix='dn.')
        outputs = run(decoder, feats, boxes_xyzr=boxes, extras=[extra])
        return [[values[:, :Q] for values in output] for output in outputs]

    for shape in (4,), (2, 4):  # of all clips, of each clip
        assert_same(learned_outputs(torch.ones(shape)), expected)
    visible = learned_outputs(torch.zeros(4))
    assert not torch.allclose(visible[0][0], expected[0].person_logits, atol=1e-3)


def test_autocast_changes_little_and_samples_in_full_precision(monkeypatch):
    attend, dtypes = deformable_stage.attend, []

    def spy(values, layout, points, weights):
        dtypes.extend(tensor.dtype for tensor in (values, points, weights))
        return attend(values, layout, points, weights)

    decoder, feats = make_decoder(memory='time'), make_feats()
    with torch.no_grad():
        expected = run(decoder, feats)
        monkeypatch.setattr(deformable_stage, 'attend', spy)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            outputs = run(decoder, feats)
    assert dtypes == [torch.float32] * 2 * 2 * 3
    for output, full in zip(outputs, expected, strict=True):
        assert_close(output.bboxes, full.bboxes, rtol=0.05, atol=2)
        for ours, theirs in zip(output[:2], full[:2], strict=True):
            assert_close(ours.float(), theirs, rtol=0.05, atol=0.05)
