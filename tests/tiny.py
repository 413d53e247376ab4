"""A tiny detector and tiny samples for it."""

from collections import Counter
from pathlib import Path

import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.decoder.initial_boxes import frame_bboxes
from stmixer_mm.registry import MODELS

MODELS_FOLDER = Path(__file__).parents[1] / 'configs' / '_base_' / 'models'
NUM_CLASSES = 4
MASK_HEAD = dict(
    type='QueryMaskHead',
    loss_mask=dict(type='mmdet.FocalLoss', use_sigmoid=True),
    loss_dice=dict(type='mmdet.DiceLoss'),
)
BACKBONE = dict(
    type='ResNet3dSlowOnly', depth=18, base_channels=4, pretrained=None,
    out_indices=(0, 1, 2, 3), norm_eval=True,
)  # fmt: skip


def tiny_decoder(**overrides) -> dict:
    settings = dict(
        type='STMixerDecoder', num_frames=2, embed_dims=16, num_queries=5, num_stages=2,
        num_heads=2, feedforward_channels=32, num_groups=2, num_points=4,
        num_classes=NUM_CLASSES,
    )  # fmt: skip
    return settings | overrides


def tiny_deformable_decoder(**overrides) -> dict:
    settings = tiny_decoder(type='DeformableDecoder', num_levels=4)
    del settings['num_groups'], settings['num_points']
    return settings | overrides


def tiny_head(**overrides) -> dict:
    """The released head for fewer classes, without the fallback of the AVA configs."""
    released = Config.fromfile(MODELS_FOLDER / 'stmixer.py').model.head.to_dict()
    return {**released, 'num_classes': NUM_CLASSES, 'fallback_topk': 0, **overrides}


def tiny_detector(decoder: dict | None = None, head: dict | None = None) -> dict:
    """Config of a detector for clips (3, 2, H, W)."""
    return dict(
        type='STMixer',
        data_preprocessor=dict(
            type='ClipDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3
        ),
        backbone=dict(BACKBONE),
        neck=dict(
            type='ChannelProjection3D', in_channels=[4, 8, 16, 32], out_channels=16
        ),
        decoder=decoder or tiny_decoder(),
        head=head or tiny_head(),
    )


def build_detector(config: dict | None = None, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = MODELS.build(config or tiny_detector())
    model.init_weights()
    # Without these the stages would not depend on their input at the start.
    for _name, parameter in model.decoder.named_parameters():
        if parameter.dim() > 1:
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


def whole_frames(decoder, img_shapes):
    """First boxes (B, Q, 4) for a decoder, of frames (h, w)."""
    boxes_xyzr = xyxy_to_xyzr(frame_bboxes(torch.as_tensor(img_shapes)))
    return boxes_xyzr[:, None].repeat(1, decoder.num_queries, 1)


def data_sample(
    bboxes=(),
    actions=(),
    img_shape=(64, 96),
    name='video,0001',
    num_classes=NUM_CLASSES,
    **metainfo,
):
    """A sample with persons' boxes (pixel xyxy) and, for each, its actions (from 1)."""
    labels = torch.zeros(len(bboxes), num_classes)
    for row, columns in zip(labels, actions, strict=True):
        row[list(columns)] = 1
    names = dict(img_shape=img_shape, img_key=name)
    sample = ActionDataSample(metainfo=names | metainfo)
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(bboxes, dtype=torch.float32).reshape(-1, 4), labels=labels
    )
    return sample


def batch(*samples):
    """Loader output: a random uint8 clip for each sample."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(3, sample.get('clip_len', 2), *sample.img_shape) for sample in samples]
    clips = [
        torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        for shape in shapes
    ]
    return dict(inputs=clips, data_samples=list(samples))


def two(**metainfo):
    """A sample of two persons."""
    return data_sample([(5, 5, 40, 60), (50, 10, 90, 50)], [(1,), (2, 3)], **metainfo)


def nobody(**metainfo):
    return data_sample(name='empty,0001', **metainfo)


def losses_of(model, *samples):
    data = model.data_preprocessor(batch(*samples), training=True)
    return model(**data, mode='loss')


def assert_all_learn(model):
    """After a backward pass: every parameter has a finite gradient."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


class Operators(TorchDispatchMode):
    """Counts kernels by name; a host waits for its GPU for those under 'waits'."""

    WAITS = 'aten::_local_scalar_dense', 'aten::nonzero', 'aten::masked_select'

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        by_mask = name in ('aten::index', 'aten::index_put_') and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.counts['waits'] += by_mask or name in self.WAITS
        self.counts[name] += not func.is_view
        return func(*args, **kwargs or {})


def count_operators(model, *samples):
    """Of a training step."""
    data = model.data_preprocessor(batch(*samples))
    model.zero_grad()
    with Operators() as mode:
        losses, _ = model.parse_losses(model(**data, mode='loss'))
        losses.backward()
    return +mode.counts
