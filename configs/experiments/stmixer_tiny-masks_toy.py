# Masks of persons, drawn from their queries (DETR's panoptic head).
_base_ = './stmixer_tiny-denoising_toy.py'
custom_imports = dict(
    imports=['stmixer_mm.projects.denoising', 'stmixer_mm.projects.masks']
)
focal = dict(type='mmdet.FocalLoss', use_sigmoid=True, loss_weight=20.0)
dice = dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=1.0)
losses = dict(loss_mask=focal, loss_dice=dice)
model = dict(mask_head=dict(type='QueryMaskHead', num_levels=2, **losses))
pipeline = [*_base_.train_pipeline[:-1], dict(type='PackMasks')]
masks = dict(type='KeyframeMaskDataset', mask_file='train_masks.json')
train_dataloader = dict(dataset=dict(pipeline=pipeline, **masks))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = val_dataloader
ap = dict(type='MaskAPMetric', mask_file='val_masks.json', data_root=_base_.data_root)
val_evaluator = test_evaluator = [_base_.val_evaluator, ap]
