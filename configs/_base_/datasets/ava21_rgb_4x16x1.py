_base_ = './ava22_rgb_4x16x1.py'

ann_root = _base_.ann_root
label_file = f'{ann_root}/ava_action_list_v2.1_for_activitynet_2018.pbtxt'
val_ann_file = f'{ann_root}/ava_val_v2.1.csv'
val_exclude_file = f'{ann_root}/ava_val_excluded_timestamps_v2.1.csv'

train_dataloader = dict(
    dataset=dict(
        ann_file=f'{ann_root}/ava_train_v2.1.csv',
        exclude_file=f'{ann_root}/ava_train_excluded_timestamps_v2.1.csv',
        label_file=label_file,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file=val_ann_file, exclude_file=val_exclude_file, label_file=label_file
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(
    ann_file=val_ann_file, exclude_file=val_exclude_file, label_file=label_file
)
test_evaluator = val_evaluator
