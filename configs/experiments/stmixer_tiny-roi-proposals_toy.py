# Two stages instead of one: mmaction2's AVARoIHead on boxes of a proposal file.
_base_ = '../roi/roi_tiny_1xb8-4x3x1_toy.py'

model = dict(persons='proposals')
# A pickle {'video,0001': array (n, 4 or 5) of x1, y1, x2, y2 in [0, 1] and score}.
proposals = dict(type='KeyframeProposalDataset', proposal_file='proposals_val.pkl')
val_dataloader = dict(dataset=proposals)
test_dataloader = val_dataloader
