# The queries start from the proposals of mmdet's FCOS on the keyframe.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'
custom_imports = dict(imports=['stmixer_mm.projects.proposals'])

fcos = dict(
    type='mmdet.FCOSHead',
    feat_channels=64,
    norm_cfg=dict(type='GN', num_groups=32),
    strides=(4, 8),
    # Distances to the sides of a box, in pixels: 8 cells of the level, then the rest.
    regress_ranges=((-1, 32), (32, 1e8)),
)
model = dict(initial_boxes=dict(type='ProposalBoxes', dense_head=fcos))
