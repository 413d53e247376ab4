"""Laws of the parts that projects add to a detector."""

import pytest
import torch
from tiny import (
    MASK_HEAD,
    build_detector,
    losses_of,
    tiny_deformable_decoder,
    tiny_detector,
    two,
)
from tiny_tubelets import tube_detector

import stmixer_mm.projects.deformable
import stmixer_mm.projects.denoising
import stmixer_mm.projects.masks  # noqa: F401
from stmixer_mm.errors import UserError
from stmixer_mm.projects.export.tensors import TensorDetector
from stmixer_mm.projects.export.traced import Traced
from stmixer_mm.registry import MODELS


@pytest.mark.parametrize(
    'settings',
    [
        dict(head=tiny_detector()['head']),
        dict(mask_head=MASK_HEAD),
    ],
    ids=lambda settings: ''.join(settings),
)
def test_parts_of_keyframes_and_of_tubelets_do_not_mix(settings):
    with pytest.raises(UserError, match=' goes with decoders of a '):
        MODELS.build(tube_detector() | settings)


def test_a_program_of_the_deformable_decoder_takes_any_number_of_clips():
    config = tiny_detector() | dict(decoder=tiny_deformable_decoder())
    model = TensorDetector(build_detector(config)).eval()
    program = Traced(model, (2, 64, 96), None).program().module()
    for number in 1, 5:
        clips = torch.randint(0, 256, (number, 3, 2, 64, 96), dtype=torch.uint8)
        results = tuple(program(clips)), tuple(model(clips))
        torch.testing.assert_close(*results, atol=1e-3, rtol=1e-4)


def person():
    sample = two()
    sample.gt_instances.masks = torch.rand(2, 64, 96) > 0.5
    return sample


def test_masks_beside_noised_persons():
    config = tiny_detector() | dict(
        denoising=dict(type='DenoisingQueries'), mask_head=MASK_HEAD
    )
    model = build_detector(config)
    losses = losses_of(model, person(), person())
    assert losses['loss_mask'] > 0
    sum(losses.values()).backward()
    for part in model.parts:
        assert all(parameter.grad.isfinite().all() for parameter in part.parameters())
