# Queries are matched by focal cost instead of the person score.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

costs = [
    dict(type='mmdet.FocalLossCost', weight=2.0),
    dict(type='mmdet.BBoxL1Cost', weight=2.0),
    dict(type='mmdet.IoUCost', weight=2.0),
]
model = dict(head=dict(assigner=dict(match_costs=costs)))
