"""A tiny decoder of persons or tubelets, and feature maps for it."""

import pytest
import torch
from tiny import tiny_decoder, whole_frames

import stmixer_mm.projects.tubelets  # noqa: F401
from stmixer_mm.registry import MODELS

STRIDES = (4, 8, 16, 32)
TUBELETS = dict(type='STMixerTubeletDecoder')
each_kind = pytest.mark.parametrize('kind', [{}, TUBELETS], ids=['persons', 'tubelets'])


def make_decoder(**settings):
    decoder = MODELS.build(tiny_decoder() | dict(num_frames=3) | settings)
    decoder.init_weights()
    for parameter in decoder.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return decoder


def made_up_feats(decoder, *, batch=2, size=(70, 100)):
    """Levels of a clip whose size is not a multiple of the strides."""
    shape = batch, decoder.embed_dims, decoder.num_frames
    sizes = [[-(-pixels // stride) for pixels in size] for stride in STRIDES]
    return [torch.randn(*shape, *cells, requires_grad=True) for cells in sizes]


def run(decoder, feats, size=(70, 100)):
    batch = len(feats[0])
    img_shapes = torch.tensor([size, (60, 90), (50, 99)])[:batch]
    boxes_xyzr = whole_frames(decoder, img_shapes).to(feats[0].device)
    outputs = decoder(feats, boxes_xyzr, size).stages
    return [values for output in outputs for values in output]


def assert_all_close(ours, theirs, tolerance):
    for ours_each, theirs_each in zip(ours, theirs, strict=True):
        scale = max(1.0, theirs_each.abs().max().item())
        torch.testing.assert_close(
            ours_each, theirs_each, rtol=tolerance, atol=tolerance * scale
        )
