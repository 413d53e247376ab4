# Neck: four levels from the backbone's last map, then weighted two-way fusion.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(
    neck=[
        dict(type='ViTPyramid3D', in_channels=64, out_channels=64),
        dict(type='BiFPN3D', in_channels=[64] * 4, out_channels=64),
    ]
)
