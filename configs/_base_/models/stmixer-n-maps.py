# stmixer-n whose actions are read from maps: linear in what its backbone sees of each
# frame and of its difference from the frame before, as few videos are soon memorised.
_base_ = './stmixer-n_lite0.py'

model = dict(
    backbone=dict(with_differences=True),
    neck=dict(
        type='ActionMaps',
        num_actions=None,  # as many as the label map has
        map_channels=[48, 80, 224, 384],
        num_parts=3,
        dropout=0.3,
    ),
    decoder=dict(type='ActionMapDecoder'),
)
