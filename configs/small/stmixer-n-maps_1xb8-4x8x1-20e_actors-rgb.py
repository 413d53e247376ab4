# stmixer-n of your own videos whose actors are not persons (docs/own_data.md): detector
# and maps learned together, from ImageNet weights. A child says how many actions there are.
_base_ = './stmixer-n-maps_1xb8-4x8x1-20e_own-rgb.py'
load_from = None

model = dict(backbone=dict(backbone=dict(checkpoint='data/efficientnet-lite0.pth')))
optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={'backbone': dict(lr_mult=0.2), 'neck.maps': dict(lr_mult=4.0)},
    ),
)
