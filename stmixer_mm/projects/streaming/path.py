"""The way from frames to feature maps, cut where frames begin to see each other.

Shapes: N frames, C channels, h x w cells; B clips, T frames of a clip.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from mmaction.models.backbones.resnet3d import ResNet3d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stmixer_mm.errors import UserError
from stmixer_mm.models.backbones.framewise import FramewiseBackbone
from stmixer_mm.models.necks.framewise import FramewiseNeck
from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.models.necks.projection import ChannelProjection3D

Levels = list[Tensor]  # (N, C, 1, h, w) each
_POINTWISE = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU),
    *(nn.Hardswish, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Dropout),
)


class Step(NamedTuple):
    """A step that is taken once for each frame.

    ``run`` gets the levels of N frames and, if it ``looks_back``, the last level of the
    frames before, which is zeros where a clip begins.
    """

    run: Callable[..., Levels]
    looks_back: bool = False


def cut_path(
    modules: Sequence[nn.Module],
) -> tuple[list[Step], list[Callable[[Levels], Levels | Tensor]]]:
    """Steps for frames, as few as possible, then parts for whole clips.

    Args:
        modules: All that makes the feature maps of a detector.

    Raises:
        UserError: its backbone sees several frames from the beginning.
    """
    steps, parts, remaining_parts = [], [*modules], []
    while parts and not remaining_parts:
        new_steps, remaining_parts = _cut(parts[0])
        parts = [*remaining_parts, *parts[1:]]
        for step in new_steps:
            if steps and not step.looks_back:
                first, looks_back = steps.pop()
                step = Step(_chain(first, step.run), looks_back)
            steps.append(step)
    if not steps:
        raise UserError(
            f'{type(modules[0]).__name__} cannot stream: its first layers see several '
            'frames of a clip at once; take a backbone that sees them one by one, '
            'such as FramewiseBackbone.'
        )
    return steps, parts


def _chain(first: Callable[..., Levels], second: Callable[..., Levels]) -> Callable:
    return lambda *inputs: second(first(*inputs))


def _cut(module: nn.Module) -> tuple[list[Step], list[Callable]]:
    """The steps of a module, and what of it sees whole clips."""
    if hasattr(module, 'frame_steps'):
        return [Step(*step) for step in module.frame_steps()], []
    if _sees_one_frame(module):
        return [Step(lambda levels: as_levels(module(as_feats(levels))))], []
    if type(module).forward is ResNet3d.forward:
        return _cut_resnet3d(module)
    return [], [module]


def as_feats(levels: Levels) -> Levels | Tensor:
    """Levels as parts hand them on: a single one is no list."""
    return levels[0] if len(levels) == 1 else levels


def _sees_one_frame(module: nn.Module) -> bool:
    """True if a part of a path treats each frame alone."""
    kind = type(module)
    if kind is FramewiseBackbone:
        return module.num_segments is None
    if kind is ChannelProjection3D:
        return module.num_frames is None
    return kind is FramewiseNeck


def _has_no_kernel_in_time(module: nn.Module) -> bool:
    if any(getattr(layer, 'non_local', False) for layer in module.modules()):
        return False
    leaves = (layer for layer in module.modules() if not [*layer.children()])
    return all(
        (layer.kernel_size[0], layer.stride[0]) == (1, 1)
        if isinstance(layer, nn.Conv3d | nn.MaxPool3d)
        else isinstance(layer, (*_POINTWISE, _BatchNorm))
        for layer in leaves
    )


def _cut_resnet3d(net: ResNet3d) -> tuple[list[Step], list[Callable]]:
    """The stages of a SlowOnly before the first kernel in time, and the rest."""
    stem = nn.Sequential(net.conv1, *([net.maxpool] if net.with_pool1 else []))
    stages = [getattr(net, name) for name in net.res_layers]
    apart = [*takewhile(_has_no_kernel_in_time, stages)]
    count = 0 if net.with_pool2 else len(apart)
    if not count or not _has_no_kernel_in_time(stem):
        return [], [net]

    def run(levels: Levels, which: Iterable[int]) -> Levels:
        for index in which:
            outputs = levels if index - 1 in net.out_indices else levels[:-1]
            levels = [*outputs, stages[index](levels[-1])]
        return levels

    def rest(levels: Levels) -> Levels | Tensor:
        levels = run(levels, range(count, len(stages)))
        return as_feats(levels if len(stages) - 1 in net.out_indices else levels[:-1])

    return [Step(lambda levels: run([stem(*levels)], range(count)))], [rest]
