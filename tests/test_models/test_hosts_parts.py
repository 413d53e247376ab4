"""A host's part is built in the scope of its host, whatever the default scope."""

import pytest
from mmdet.models.necks import FPN_DropBlock
from mmengine.registry import DefaultScope

from stmixer_mm.registry import MODELS, TASK_UTILS

PYRAMID = dict(in_channels=[8, 16], out_channels=8, num_outs=2)
DROP_BLOCK = dict(type='mmdet.FPN_DropBlock', **PYRAMID)
COST = dict(type='ClassificationCost')
ONE_STAGE = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
PARTS = {  # each builds further parts, by default or as its config has them
    'neck': (MODELS, DROP_BLOCK),
    'neck by class': (MODELS, dict(DROP_BLOCK, type=FPN_DropBlock)),
    'wrapped neck': (MODELS, dict(type='FramewiseNeck', neck=DROP_BLOCK)),
    'wrapped backbone': (
        MODELS,
        dict(type='TappedBackbone', taps=['layer1'])
        | dict(backbone=dict(type='mmaction.C2D', depth=18, **ONE_STAGE)),
    ),
    'assigner': (TASK_UTILS, dict(type='mmdet.HungarianAssigner', match_costs=[COST])),
}


@pytest.mark.parametrize('scope', ['mmaction', 'mmdet'])
@pytest.mark.parametrize('part', PARTS)
def test_what_a_hosts_part_builds_is_found(part, scope):
    registry, config = PARTS[part]
    with DefaultScope.overwrite_default_scope(scope):
        registry.build(config)
