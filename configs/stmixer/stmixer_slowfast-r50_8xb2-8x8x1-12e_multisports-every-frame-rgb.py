# Every annotated frame is a keyframe of training. A user reached the paper's figure on
# JHMDB so, with AVA's other settings (github.com/MCG-NJU/STMixer/issues/5).
_base_ = './stmixer_slowfast-r50_8xb2-8x8x1-12e_multisports-rgb.py'

train_dataloader = dict(dataset=dict(frame_stride=1))
