"""Print the parts of a model with the shapes that flow between them.

Nothing is downloaded, and nothing computed but shapes.
"""

import argparse
from collections.abc import Iterator
from copy import deepcopy
from itertools import zip_longest

from stmixer_mm.checks.options import COUNT, add_cfg_options
from stmixer_mm.errors import blame, user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.models.decoder.initial_boxes import InitialBoxes
from stmixer_mm.models.decoder.query_decoder import QueryDecoder
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.shapes import describe, trace_shapes, unnoticed
from stmixer_mm.projects.denoising.denoising_queries import DenoisingQueries
from stmixer_mm.projects.masks.mask_head import QueryMaskHead
from stmixer_mm.projects.profiling.clips import random_clip
from stmixer_mm.projects.profiling.models import construct_model, quieten, read_config
from stmixer_mm.projects.track_queries.query_interaction import QueryInteraction

import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

UNKNOWN = ['?']


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file, or one of a package as in mmaction::a/b.py'
    )
    parser.add_argument(
        '--shape',
        type=COUNT,
        nargs=3,
        metavar=('T', 'H', 'W'),
        help='frames, height and width of the clip; by default what the test pipeline '
        'makes of frames of 4:5',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def clip_shape(cfg: Config, shape: list[int] | None) -> tuple[int, int, int]:
    """Frames, height and width of a clip before it is padded."""
    if shape is None:
        (clip,) = random_clip(cfg)['inputs']
        return tuple(clip.shape[-3:])
    return tuple(shape)


def preprocess(model: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """A clip, or image, after the data preprocessor, on the meta device."""
    images = isinstance(model.data_preprocessor, ImgDataPreprocessor)
    size = shape[1:] if images else shape
    clip = torch.zeros(3, *size, dtype=torch.uint8, device='meta')
    sample = ActionDataSample(metainfo=dict(img_shape=shape[1:]))
    data = dict(inputs=[clip], data_samples=[sample])
    return deepcopy(model.data_preprocessor).to('meta')(data)['inputs']


def shapes_of(feats: object) -> list[str]:
    """Shapes of one tensor or of several, without the batch."""
    feats = feats if isinstance(feats, list | tuple) else [feats]
    if not all(isinstance(feat, Tensor) for feat in feats):
        return [describe(feats)]
    return ['x'.join(map(str, feat.shape[1:])) for feat in feats]


def list_rows(
    model: nn.Module, shape: tuple[int, int, int]
) -> Iterator[tuple[str, str, list[str], list[str], nn.Module]]:
    """Part, type, what goes in, what comes out, and the module."""
    inputs = preprocess(model, shape)
    preprocessor = model.data_preprocessor
    given = [f'3x{"x".join(map(str, shape))}']
    name = type(preprocessor).__name__
    yield 'data_preprocessor', name, given, shapes_of(inputs), preprocessor

    traced = trace_shapes(model, inputs)
    pad_shape = tuple(inputs.shape[-2:])
    if isinstance(model, ClipDetector):
        model.check_feats(traced.feats, pad_shape)
    for key, part, given, returned in traced.parts:
        name = type(part).__name__
        yield (
            key.removeprefix('model.'),
            name,
            shapes_of(given),
            shapes_of(returned),
            part,
        )

    for name, child in model.named_children():
        if name in ('data_preprocessor', 'backbone', 'neck'):
            continue
        given, outputs = UNKNOWN, UNKNOWN
        if isinstance(child, QueryDecoder):
            strides = child.strides_of(traced.feats, pad_shape)
            given = [f'strides {", ".join(f"{stride:g}" for stride in strides)}']
            outputs = [f'{len(child.stages)} stages of {child.num_queries} queries']
            stages = outputs
        elif isinstance(child, InitialBoxes):
            given, outputs = ['frames'], [f'{child.num_queries} boxes']
        elif isinstance(child, QueryInteraction):
            given, outputs = ['tracks'], [f'{child.num_queries} queries at most']
        elif isinstance(child, DenoisingQueries):
            given, outputs = (
                ['persons'],
                [f'{child.num_groups} copies of each to learn'],
            )
        elif name == 'head' and isinstance(model, ClipDetector):
            given, outputs = stages, [f'boxes, {child.num_classes - 1} actions']
        elif isinstance(child, QueryMaskHead):
            levels = list(traced.feats)[: child.num_levels]
            given = shapes_of(levels)
            outputs = [f'masks {describe(levels[0][0, 0, 0])}']
        yield name, type(child).__name__, given, outputs, child


def print_table(model: nn.Module, shape: tuple[int, int, int]) -> None:
    rows = [('part', 'type', 'in', 'out', 'parameters (M)')]
    unknown = []
    for name, type_name, inputs, outputs, module in list_rows(model, shape):
        count = sum(parameter.numel() for parameter in module.parameters()) / 1e6
        labels = [(name, type_name, f'{count:,.3f}')]
        for label, one, other in zip_longest(labels, inputs, outputs, fillvalue=''):
            part, type_name, number = label or ('', '', '')
            rows.append((part, type_name, one, other, number))
        if outputs is UNKNOWN:
            unknown.append(name)
    total = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    rows.append(('total', type(model).__name__, '', '', f'{total:,.3f}'))
    print('levels of a clip: channels x frames x height x width')
    print(format_table(rows, left=4))
    if unknown:
        print(f'What {", ".join(unknown)} makes of this is not known here.')


def run(args: argparse.Namespace) -> None:
    quieten()
    cfg = read_config(args.config, args.cfg_options)
    with blame(f'{args.config} cannot be shown'):
        shape = clip_shape(cfg, args.shape)
        with unnoticed():
            print_table(construct_model(cfg), shape)


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
