_base_ = './ava_kinetics_rgb_32x2x1.py'

clip = dict(clip_len=16, frame_interval=4)
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
kinetics_train_pipeline = _base_.kinetics_train_pipeline
kinetics_test_pipeline = _base_.kinetics_test_pipeline
train_pipeline[0].update(clip)
test_pipeline[0].update(clip)
kinetics_train_pipeline[1].update(clip)
kinetics_test_pipeline[1].update(clip)

train_parts = _base_.train_dataloader.dataset.datasets
train_parts[0].update(pipeline=train_pipeline)
train_parts[1].update(pipeline=kinetics_train_pipeline)
test_parts = _base_.test_dataloader.dataset.datasets
test_parts[0].update(pipeline=test_pipeline)
test_parts[1].update(pipeline=kinetics_test_pipeline)

train_dataloader = dict(dataset=dict(datasets=train_parts))
val_dataloader = dict(dataset=dict(datasets=test_parts))
test_dataloader = val_dataloader
