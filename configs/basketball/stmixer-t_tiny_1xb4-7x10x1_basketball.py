# Tubelets of the same clip, of whose frames one a second is annotated: clips of two seconds
# reach the keyframes before and after, and nothing is known of the frames between.
_base_ = ['./stmixer_tiny_1xb4-4x8x1_basketball.py', '../_base_/models/tubelets.py']
custom_imports = dict(imports=['stmixer_mm.projects.tubelets'])

model = dict(decoder=_base_.tubelet_decoder, head=_base_.tubelet_head)
model['decoder'].update(num_frames=7, num_queries=12, frame_actions=True)

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(clip_len=7, frame_interval=10)
train_pipeline.insert(2, dict(type='LocateTubelets', frame_actions=True))
train_pipeline[-1] = dict(type='PackTubelets')
test_pipeline = train_pipeline

dataset = dict(type='TrackClipDataset', pipeline=train_pipeline)
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
