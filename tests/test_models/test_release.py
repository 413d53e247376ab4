"""Conversion of released checkpoints of any size."""

import pytest
import torch
from tiny import build_detector
from tiny_release import BACKBONES, SIZES, make_parts, released_state_dict

from stmixer_mm.models.release import convert_state_dict
from stmixer_mm.registry import MODELS


@pytest.fixture(scope='module')
def slowonly():
    return released_state_dict('slowonly')


@pytest.mark.parametrize('backbone', BACKBONES)
def test_every_backbone_is_found(backbone):
    state = released_state_dict(backbone)
    # As after data-parallel training.
    converted, parts = convert_state_dict({f'module.{k}': v for k, v in state.items()})
    expected = make_parts(backbone, SIZES)
    for part, config in expected.items():
        model = MODELS.build(parts[part])
        prefix, weights = f'{part}.', {}
        for name, value in converted.items():
            if name.startswith(prefix):
                weights[name.removeprefix(prefix)] = value
        model.load_state_dict(weights)
        for key, value in config.items():
            if key != 'type':
                assert parts[part][key] == value or tuple(value) == parts[part][key]


@pytest.mark.parametrize(
    'sizes',
    [
        dict(num_queries=1, num_stages=1, num_classes=2),
        dict(num_points=1),
        dict(out_multiplier=1),
        dict(num_groups=1),
        dict(num_groups=6, num_points=9),
        dict(num_frames=1),
        dict(embed_dims=32, num_groups=8, num_points=4, out_multiplier=3),
    ],
    ids=str,
)
def test_sizes_are_read_off(sizes):
    _, parts = convert_state_dict(released_state_dict('slowonly', **sizes))
    decoder_sizes = {name: parts['decoder'][name] for name in SIZES}
    assert decoder_sizes == {**SIZES, **sizes}


def test_faults_are_listed(slowonly):
    missing = 'backbone.s3.pathway0_res1.branch2.b_bn.running_var'
    name = 'stm_head.decoder_stages.1.fc_action.bias'
    broken = {**slowonly, 'stm_head.extra': torch.zeros(1), name: torch.zeros(9)}
    del broken[missing]
    with pytest.raises(ValueError, match='left over: stm_head') as error:
        convert_state_dict(broken)
    for fault in (missing, f'{name} (9,) instead of (5,)'):
        assert fault in str(error.value)


def test_no_released_checkpoint(slowonly):
    name = 'lateral_convs.2.weight'  # which tells a size
    with pytest.raises(ValueError, match=f'missing: {name}'):
        convert_state_dict({key: slowonly[key] for key in slowonly if key != name})
    with pytest.raises(ValueError, match='not a SlowOnly, SlowFast or ViT'):
        convert_state_dict(build_detector().state_dict())
