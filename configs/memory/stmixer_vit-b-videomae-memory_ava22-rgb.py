# A memory for the ViT-B detector:
#   stmixer extract stmixer_vit-b-videomae_8xb1-16x4x1-12e_ava22-rgb DETECTOR.pth
#     data/ava/rawframes/* --out data/ava/banks --interval-s 1
# Not trained yet.
_base_ = [
    '../stmixer/stmixer_vit-b-videomae_8xb1-16x4x1-12e_ava22-rgb.py',
    '../_base_/models/memory_ava22.py',
]
custom_imports = dict(imports=['stmixer_mm', 'stmixer_mm.projects.memory'])

model = _base_.with_memory
train_dataloader = dict(
    batch_size=32, dataset=dict(dataset=_base_.train_dataloader.dataset, **_base_.banks)
)
val_dataloader = dict(
    batch_size=32, dataset=dict(dataset=_base_.val_dataloader.dataset, **_base_.banks)
)
test_dataloader = val_dataloader

# As the toy's memory, which starts from nothing as well.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
# The detector comes from a checkpoint without memory.
default_hooks = dict(check_checkpoint=dict(allow=['^memory[.]']))
