_base_ = './tubelets_rgb_32x1x1.py'

clip_train_pipeline, clip_test_pipeline = (
    _base_.clip_train_pipeline,
    _base_.clip_test_pipeline,
)
clip_train_pipeline[0].update(clip_len=16)
clip_test_pipeline[0].update(clip_len=16)
train_clips = dict(pipeline=clip_train_pipeline)
test_clips = dict(frame_stride=8, pipeline=clip_test_pipeline)
