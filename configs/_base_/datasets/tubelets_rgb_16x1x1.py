_base_ = './tubelets_rgb_32x1x1.py'

clip = dict(_base_.clip, clip_len=16)
train_clips = dict(pipeline=[clip, *_base_.train_clips.pipeline[1:]])
test_clips = dict(frame_stride=8, pipeline=[clip, *_base_.test_clips.pipeline[1:]])
