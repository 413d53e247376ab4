# A memory for the ViT-B detector, from banks in data/ava/banks with a keyframe a second:
#   stmixer extract stmixer_vit-b-videomae_8xb1-16x4x1-12e_ava22-rgb DETECTOR.pth
#     data/ava/rawframes/* --out data/ava/banks --interval-s 1
# Nobody has trained it yet.
_base_ = '../stmixer/stmixer_vit-b-videomae_8xb1-16x4x1-12e_ava22-rgb.py'
custom_imports = dict(imports=['stmixer_mm', 'stmixer_mm.projects.memory'])

window_s = 30.0  # 60 s in all, as Wu et al. (CVPR 2019) and the host's configs/lfb
model = dict(
    type='BankActions',
    data_preprocessor=dict(type='BankPreprocessor'),
    memory=dict(
        type='LongTermActions',
        window_s=window_s,
        num_layers=2,  # as the host's num_non_local_layers
        width=512,  # as the host's latent_channels
        drop_prob=0.2,  # as the host's lt_feat_dropout_ratio
    ),
)
banks = dict(
    type='BankDataset', banks='data/ava/banks', window_s=window_s, _delete_=True
)
train_dataloader = dict(
    batch_size=32, dataset=dict(dataset=_base_.train_dataloader.dataset, **banks)
)
val_dataloader = dict(
    batch_size=32, dataset=dict(dataset=_base_.val_dataloader.dataset, **banks)
)
test_dataloader = val_dataloader

# As the toy's memory, which starts from nothing as well.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
# The detector comes from a checkpoint without memory.
default_hooks = dict(check_checkpoint=dict(allow=['^memory[.]']))
