# Decoder: deformable DETR's; both query sets read the keyframe's maps.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'
custom_imports = dict(imports=['stmixer_mm.projects.deformable'])

sizes = dict(num_levels=2, num_frames=4, num_queries=20, num_stages=4)
widths = dict(embed_dims=64, num_heads=4, num_points=4, feedforward_channels=256)
decoder = dict(type='DeformableDecoder', memory='keyframe', **sizes, **widths)
model = dict(decoder=dict(_delete_=True, **decoder))
# Its own best; STMixer's is the base's.
optim_wrapper = dict(optimizer=dict(lr=1.2e-3))
