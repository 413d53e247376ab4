# The detector whose persons the memory of stmixer_tiny-memory_toy-memory.py remembers, on
# videos of twice the length. Of its ten actions two show in no clip.
_base_ = '../experiments/stmixer_tiny-denoising_toy.py'

files = dict(data_root='data/toy_memory')
model = dict(head=dict(num_classes=11))
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
val_evaluator = files
test_evaluator = files
