# In each clip only 10 of the 20 queries, drawn at random, learn about persons.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

sampler = dict(
    type='mmdet.RandomSampler', num=10, pos_fraction=0.5, add_gt_as_proposals=False
)
model = dict(head=dict(sampler=sampler))
