# A memory of AVA's videos, from banks in data/ava/banks with a keyframe a second.
window_s = 30.0  # 60 s in all, as Wu et al. (CVPR 2019) and the host's configs/lfb
with_memory = dict(
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
