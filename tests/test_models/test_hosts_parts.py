"""A host's part is built in the scope of its host, whatever the default scope."""

import pytest
from mmdet.models.necks import FPN_DropBlock
from mmengine.registry import DefaultScope

from stmixer_mm.registry import MODELS, TASK_UTILS

PYRAMID = dict(in_channels=[8, 16], out_channels=8, num_outs=2)
DROP_BLOCK = dict(type='mmdet.FPN_DropBlock', **PYRAMID)
COST, SAMPLER = dict(type='ClassificationCost'), dict(type='RandomSampler')
SAMPLERS = dict(num=8, pos_fraction=0.5, pos_sampler=SAMPLER, neg_sampler=SAMPLER)
ONE_STAGE = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
PARTS = {  # each builds further parts, by default or as its config has them
    'neck': (MODELS, DROP_BLOCK),
    'neck by class': (MODELS, dict(DROP_BLOCK, type=FPN_DropBlock)),
    'list of necks': (MODELS, [DROP_BLOCK]),
    'wrapped neck': (MODELS, dict(type='FramewiseNeck', neck=DROP_BLOCK)),
    'backbone': (
        MODELS,
        dict(type='mmaction.ResNet2Plus1d', depth=18, pretrained2d=False)
        | dict(conv_cfg=dict(type='Conv2plus1d')),
    ),
    'wrapped backbone': (
        MODELS,
        dict(type='TappedBackbone', taps=['layer1'])
        | dict(backbone=dict(type='mmaction.C2D', depth=18, **ONE_STAGE)),
    ),
    'assigner': (TASK_UTILS, dict(type='mmdet.HungarianAssigner', match_costs=[COST])),
    'sampler': (TASK_UTILS, dict(type='mmdet.CombinedSampler', **SAMPLERS)),
}


@pytest.mark.parametrize('scope', ['mmaction', 'mmdet'])
@pytest.mark.parametrize('part', PARTS)
def test_what_a_hosts_part_builds_is_found(part, scope):
    registry, config = PARTS[part]
    with DefaultScope.overwrite_default_scope(scope):
        registry.build(config)
