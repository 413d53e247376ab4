# The toy dataset with two more actions, which show only in what was before a clip:
# tools/make_toy_dataset.py --story memory --out data/toy_memory
_base_ = './toy.py'

files = dict(data_root='data/toy_memory')
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
val_evaluator = files
test_evaluator = files
