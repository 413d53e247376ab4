_base_ = './stmixer.py'

# Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/videomae/'
    'vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400_20221013-860a3cd3.pth'
)
model = dict(
    init_cfg=dict(type='Pretrained', checkpoint=url),
    backbone=dict(
        type='CheckpointedVisionTransformer',
        img_size=224,  # of the position table, which is resized to the clip
        patch_size=16,
        embed_dims=768,
        depth=12,
        num_heads=12,
        num_frames=16,
        tubelet_size=2,
        drop_path_rate=0.2,
        return_feat_map=True,
        use_mean_pooling=False,  # else the last layer norm is dropped
        with_cp=True,
    ),
    neck=dict(
        type='ViTPyramid3D', in_channels=768, out_channels=256, scales=(4, 2, 1, 0.5)
    ),
    decoder=dict(num_frames=8),
)
