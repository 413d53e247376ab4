# The toy's detector and a memory that learn together, after
# stmixer_tiny-memory_toy-memory.py's first two commands:
#   stmixer train stmixer_tiny-memory-joint_toy-memory --work-dir BOTH
#     --cfg-options load_from=DETECTOR/epoch_4.pth
_base_ = './stmixer_tiny-memory_toy-memory.py'

model = dict(with_detector=True)
with_clips = dict(batch_size=8, dataset=dict(with_clips=True))
train_dataloader = with_clips
val_dataloader = with_clips
test_dataloader = with_clips

# The detector goes on slowly, as banks are of the one that it was.
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(memory=dict(lr_mult=5))),
)
train_cfg = dict(max_epochs=4, val_interval=4)
