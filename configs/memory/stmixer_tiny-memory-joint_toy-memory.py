# The toy's detector and a memory that learn together, after
# stmixer_tiny-memory_toy-memory.py's first two commands:
#   stmixer train stmixer_tiny-memory-joint_toy-memory --work-dir BOTH
#     --cfg-options load_from=DETECTOR/epoch_4.pth
_base_ = './stmixer_tiny-denoising_toy-memory.py'
custom_imports = dict(
    imports=['stmixer_mm.projects.denoising', 'stmixer_mm.projects.memory']
)

window_s = 30.0
model = dict(
    type='BankActions',
    with_detector=True,
    memory=dict(type='LongTermActions', window_s=window_s),
)
banks = dict(
    type='BankDataset',
    banks='data/toy_memory/banks',
    window_s=window_s,
    with_clips=True,
    _delete_=True,
)
train_dataloader = dict(dataset=dict(dataset=_base_.train_dataloader.dataset, **banks))
val_dataloader = dict(dataset=dict(dataset=_base_.val_dataloader.dataset, **banks))
test_dataloader = val_dataloader

# The detector goes on slowly, as banks are of the one that it was.
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(custom_keys=dict(memory=dict(lr_mult=5))),
)
# It comes from a checkpoint without memory.
default_hooks = dict(check_checkpoint=dict(allow=['^memory[.]']))
