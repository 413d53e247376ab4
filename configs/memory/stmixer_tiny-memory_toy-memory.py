# A memory for the toy's detector, which learns in minutes from banks in data/toy_memory:
#   stmixer train stmixer_tiny-denoising_toy-memory --work-dir DETECTOR
#   stmixer extract stmixer_tiny-denoising_toy-memory DETECTOR/epoch_4.pth
#     data/toy_memory/videos --out data/toy_memory/banks --interval-s 0.5
#   stmixer train stmixer_tiny-memory_toy-memory --work-dir MEMORY
#     --cfg-options load_from=DETECTOR/epoch_4.pth
_base_ = './stmixer_tiny-denoising_toy-memory.py'
custom_imports = dict(
    imports=['stmixer_mm.projects.denoising', 'stmixer_mm.projects.memory']
)

window_s = 30.0
model = dict(
    type='BankActions',
    data_preprocessor=dict(type='BankPreprocessor'),
    memory=dict(type='LongTermActions', window_s=window_s),
)
banks = dict(
    type='BankDataset',
    banks='data/toy_memory/banks',
    window_s=window_s,
    _delete_=True,
)
train_dataloader = dict(
    batch_size=32, dataset=dict(dataset=_base_.train_dataloader.dataset, **banks)
)
val_dataloader = dict(
    batch_size=32, dataset=dict(dataset=_base_.val_dataloader.dataset, **banks)
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.3))
train_cfg = dict(max_epochs=40, val_interval=40)
# The detector comes from a checkpoint without memory.
default_hooks = dict(check_checkpoint=dict(allow=['^memory[.]']))
