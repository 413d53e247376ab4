"""Laws of the parts that projects add to a detector."""

import numpy as np
import pytest
import torch
from tiny import (
    MASK_HEAD,
    batch,
    build_detector,
    data_sample,
    tiny_deformable_decoder,
    tiny_detector,
    two,
)
from tiny_tubelets import tube_detector

import stmixer_mm.projects.deformable
import stmixer_mm.projects.denoising
import stmixer_mm.projects.masks
import stmixer_mm.projects.track_queries  # noqa: F401
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


def test_tracks_with_masks_beside_noised_persons():
    """Masks of learned queries and of tracks, learnt and drawn as of one keyframe."""
    config = tiny_detector() | dict(
        denoising=dict(type='DenoisingQueries'),
        mask_head=MASK_HEAD,
        query_interaction=dict(type='QueryInteraction', drop_prob=0),
    )
    model = build_detector(config).eval()
    model.head.score_thr = model.query_interaction.birth_score = 0.0
    sample = data_sample()
    sample.set_data(model.start_video())
    counts = []
    for _ in range(2):
        (sample,) = model.test_step(batch(sample))
        instances = sample.pred_instances
        assert instances.masks.shape == (len(instances.bboxes), 64, 96)
        assert 'query_vectors' not in instances
        counts.append(len(instances.bboxes))
    assert counts[0] > 0

    samples = [person(), person()]
    for place, sample in enumerate(samples):
        sample.entity_ids = np.arange(2)
        sample.set_metainfo(dict(video_id='a', timestamp=place, sequence_place=place))
    data = [batch(sample) for sample in samples]
    data = {name: [fields[name] for fields in data] for name in data[0]}
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    assert losses['loss_mask'] > 0
    sum(losses.values()).backward()
    for part in model.parts:
        assert all(parameter.grad.isfinite().all() for parameter in part.parameters())
