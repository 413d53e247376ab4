# Persons carried from keyframe to keyframe by their queries, from sequences of three.
_base_ = './stmixer_tiny-denoising_toy.py'
custom_imports = dict(
    imports=['stmixer_mm.projects.denoising', 'stmixer_mm.projects.track_queries']
)

model = dict(query_interaction=dict(type='QueryInteraction'))
keyframes = _base_.train_dataloader.dataset
keyframes.update(
    ann_file='train_tracks.csv', empty_keyframes_file='train_tracks_empty.csv'
)
keyframes.pipeline[-1].update(algorithm_keys=('entity_ids',))
sequences = dict(type='KeyframeSequences', num_keyframes=3, step=(0.2, 0.6), stride=6)
dataset = dict(_delete_=True, dataset=keyframes, **sequences)
train_dataloader = dict(batch_size=3, dataset=dataset)
