# Tubelets on Video Swin; its patches hold two frames: T 4 -> 2.
_base_ = '../stmixer/stmixer-t_tiny_1xb8-4x3x1_toy.py'

arch = dict(embed_dims=24, depths=[2, 2, 2], num_heads=[1, 2, 4])
maps = dict(window_size=(2, 7, 7), out_indices=(0, 1, 2), pretrained2d=False)
model = dict(
    backbone=dict(type='mmaction.SwinTransformer3D', _delete_=True, arch=arch, **maps),
    neck=dict(in_channels=[24, 48, 96]),
    decoder=dict(num_frames=2),
)
