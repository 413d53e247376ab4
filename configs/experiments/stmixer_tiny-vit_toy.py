# Backbone: VideoMAE's ViT and a pyramid; its patches hold two frames: T 4 -> 2.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

sizes = dict(img_size=96, num_frames=4, embed_dims=32, depth=2, num_heads=2)
maps = dict(return_feat_map=True, use_mean_pooling=False)
model = dict(
    backbone=dict(type='CheckpointedVisionTransformer', _delete_=True, **sizes, **maps),
    neck=dict(type='ViTPyramid3D', _delete_=True, in_channels=32, out_channels=64),
    decoder=dict(num_frames=2),
)
