# Each clip of the test is seen twice, straight and mirrored.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'
custom_imports = dict(imports=['stmixer_mm.projects.flip_tta'])

# In a mirror walking left, 2, is walking right, 3.
flip_tta = dict(type='FlipTTAModel', flip_label_map={2: 3, 3: 2})
custom_hooks = [dict(type='mmengine.PrepareTTAHook', tta_cfg=flip_tta)]
