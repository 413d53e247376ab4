"""Print the parts of a model with the shapes of the feature maps between them.

Nothing is downloaded, and only shapes are computed.
"""

from collections.abc import Iterator
from copy import deepcopy
from itertools import zip_longest

from stmixer_mm.command_line import CfgOptions, run_main
from stmixer_mm.errors import blame
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.shapes import describe, trace_shapes, without_side_effects
from stmixer_mm.projects.profiling.clips import Shape, random_clip
from stmixer_mm.projects.profiling.models import construct_model, quieten, read_config

import torch
from mmaction.structures import ActionDataSample
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn


def main(config: str, *, shape: Shape = None, cfg_options: CfgOptions = None) -> None:
    """Args:
    config: Config file, or one of a package as in mmaction::a/b.py.
    shape: Frames, height and width of the clip (default: those that the test pipeline
        makes of frames of 4:5).
    """
    quieten()
    cfg = read_config(config, cfg_options)
    with blame(f'{config} cannot be shown'), without_side_effects():
        if shape is None:
            (clip,) = random_clip(cfg)['inputs']
            shape = clip.shape[-3:]
        print_table(construct_model(cfg), tuple(shape))


def print_table(model: nn.Module, shape: tuple[int, int, int]) -> None:
    rows = [('part', 'type', 'in', 'out', 'parameters (M)')]
    for name, part, inputs, outputs in list_parts(model, shape):
        labels = [(name, type(part).__name__, millions(part))]
        for label, in_shape, out_shape in zip_longest(
            labels, inputs, outputs, fillvalue=''
        ):
            name, kind, number = label or ('', '', '')
            rows.append((name, kind, in_shape, out_shape, number))
    rows.append(('total', type(model).__name__, '', '', millions(model)))
    print('levels of a clip: channels x frames x height x width')
    print(format_table(rows, left=4))


def list_parts(
    model: nn.Module, shape: tuple[int, int, int]
) -> Iterator[tuple[str, nn.Module, list[str], list[str]]]:
    """Parts with the shapes of their inputs and outputs, as far as these are maps."""
    inputs = preprocess(model, shape)
    clips = [f'3x{"x".join(map(str, shape))}']
    yield 'data_preprocessor', model.data_preprocessor, clips, list_shapes(inputs)
    traced = trace_shapes(model, inputs)
    for key, part, part_inputs, part_outputs in traced.parts:
        name = key.removeprefix('model.')
        yield name, part, list_shapes(part_inputs), list_shapes(part_outputs)
    strides = []
    if isinstance(model, ClipDetector):
        size = tuple(inputs.shape[-2:])
        model.check_feats(traced.feats, size)
        if hasattr(model, 'decoder'):
            numbers = model.decoder.strides_of(traced.feats, size)
            strides = [f'strides {", ".join(f"{stride:g}" for stride in numbers)}']
    for name, part in model.named_children():
        if name not in ('data_preprocessor', 'backbone', 'neck'):
            yield name, part, strides if name == 'decoder' else [], []


def preprocess(model: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """A clip, or image, after the data preprocessor, on the meta device."""
    images = isinstance(model.data_preprocessor, ImgDataPreprocessor)
    size = shape[1:] if images else shape
    clip = torch.zeros(3, *size, dtype=torch.uint8, device='meta')
    sample = ActionDataSample(metainfo=dict(img_shape=shape[1:]))
    data = dict(inputs=[clip], data_samples=[sample])
    return deepcopy(model.data_preprocessor).to('meta')(data)['inputs']


def list_shapes(feats: object) -> list[str]:
    """Shapes of one tensor or of several, without the batch."""
    feats = feats if isinstance(feats, list | tuple) else [feats]
    if not all(isinstance(feat, Tensor) for feat in feats):
        return [describe(feats)]
    return ['x'.join(map(str, feat.shape[1:])) for feat in feats]


def millions(part: nn.Module) -> str:
    return f'{sum(parameter.numel() for parameter in part.parameters()) / 1e6:,.3f}'


if __name__ == '__main__':
    run_main(main)
