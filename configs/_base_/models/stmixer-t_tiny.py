# A small STMixer of tubelets that trains from scratch on a CPU in minutes.
_base_ = ['./stmixer_tiny.py', './tubelets.py']

model = dict(decoder=_base_.tubelet_decoder, head=_base_.tubelet_head)
# Clips of 8 frames, of which the backbone keeps each.
model['decoder'].update(num_frames=8, num_queries=12)
