"""A tiny detector of tubelets and tiny samples for it; its feature maps have 2 frames."""

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from tiny import MODELS_FOLDER, data_sample, tiny_decoder, tiny_detector, tiny_head

import stmixer_mm.projects.tubelets  # noqa: F401

SETTINGS = Config.fromfile(MODELS_FOLDER / 'tubelets.py')
DECODER = dict(type='STMixerTubeletDecoder')
SOFTMAX = dict(  # one action of each person
    single_label=True,
    loss_action=dict(type='mmdet.CrossEntropyLoss', class_weight=[0.1, 1.0, 1.0, 1.0]),
)
ALWAYS, LEAVES, SPARSE = (1, 1, 1, 1), (1, 1, 0, 0), (-1, 1, -1, -1)


def tube_detector(head=None, **decoder):
    """Config of a detector for clips of 4 frames."""
    config = tiny_detector(
        tiny_decoder(**DECODER, **decoder),
        tiny_head(**SETTINGS.tubelet_head.to_dict()) | (head or {}),
    )
    config['neck']['num_frames'] = 2
    return config


def tube_sample(*states, clip_len=4, actions=((1,), (2, 3), (3,)), seed=0):
    """A sample with persons of these states in the frames of its clip."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(len(states), clip_len, 2, generator=generator) * 30
    size = 10 + torch.rand(len(states), clip_len, 2, generator=generator) * 20
    sample = data_sample([(0, 0, 9, 9)] * len(states), actions[: len(states)])
    sample.set_metainfo(dict(clip_len=clip_len))
    sample.gt_instances.bboxes = torch.cat((corner, corner + size), dim=-1)
    sample.gt_instances.states = torch.tensor(states, dtype=torch.long).reshape(
        len(states), clip_len
    )
    return sample


def in_each_frame(sample):
    """The sample, with labels of each box, those of the clip."""
    truth = sample.gt_instances
    sample.gt_instances = InstanceData(
        bboxes=truth.bboxes,
        states=truth.states,
        labels=truth.labels[:, None].expand(*truth.states.shape, -1).clone(),
    )
    return sample
