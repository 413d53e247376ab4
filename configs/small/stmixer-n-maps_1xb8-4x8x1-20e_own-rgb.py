# stmixer-n of your own videos (docs/own_data.md): finds persons as the model in this
# package does, and learns your actions. A child says how many these are.
_base_ = [
    '../_base_/models/stmixer-n-maps.py',
    '../_base_/datasets/own_rgb_4x8x1.py',
    '../_base_/schedules/adamw_new_actions.py',
    '../_base_/maps_runtime.py',
]
load_from = 'stmixer-n_jhmdb'
train_cfg = dict(max_epochs=20, val_interval=5)
# What depends on the number of actions.
default_hooks = dict(check_checkpoint=dict(allow=['neck.maps', '_labels']))
