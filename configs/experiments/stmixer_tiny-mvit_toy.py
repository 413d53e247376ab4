# Backbone: MViTv2; its patches hold two frames: T 4 -> 2.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

arch = dict(embed_dims=16, num_layers=3, num_heads=1, downscale_indices=[1, 2])
clip = dict(spatial_size=96, temporal_size=4)
maps = dict(out_scales=[0, 1, 2], output_cls_token=False)
model = dict(
    backbone=dict(type='mmaction.MViT', _delete_=True, arch=arch, **clip, **maps),
    neck=dict(in_channels=[16, 32, 64]),
    decoder=dict(num_frames=2),
)
