# Tubelets of one label each: a softmax over the actions and background.
_base_ = '../stmixer/stmixer-t_tiny_1xb8-8x2x1_toy.py'

head = dict(single_label=True, loss_action=dict(type='mmdet.CrossEntropyLoss'))
head['loss_action'].update(_delete_=True, class_weight=[0.1] + 8 * [1.0])
model = dict(head=head)
