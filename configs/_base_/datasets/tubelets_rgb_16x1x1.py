_base_ = './tubelets_rgb_32x1x1.py'

sample = dict(
    type='SampleKeyframeClip', clip_len=16, frame_interval=1, allow_short=True
)
clip_train_pipeline = [sample, *_base_.clip_train_pipeline[1:]]
clip_test_pipeline = [sample, *_base_.clip_test_pipeline[1:]]
del sample
