"""Print the parts of a model with the shapes that flow between them.

Nothing is downloaded, and nothing computed but shapes.
"""

import argparse
from collections.abc import Iterator
from itertools import zip_longest

import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from torch import nn

from stmixer_mm.apis.running import add_cfg_options
from stmixer_mm.datasets.pipelines import clip_lengths
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.models.decoder import QueryDecoder
from stmixer_mm.models.parts import (
    Probe,
    Refusal,
    Trace,
    as_maps,
    describe,
    list_parts,
    unnoticed,
)
from stmixer_mm.models.strides import derive_strides
from stmixer_mm.profiling import (
    construct_model,
    format_table,
    made_up_clip,
    quieten,
    read_config,
)

UNKNOWN = ['?']


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file, or one of a package as in mmaction::a/b.py'
    )
    parser.add_argument(
        '--shape',
        type=int,
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
        if not clip_lengths(cfg, 'test'):
            raise UserError(
                'The test pipeline of the config samples no clips (no transform has '
                'clip_len); give --shape T H W.'
            )
        (clip,) = made_up_clip(cfg)['inputs']
        return tuple(clip.shape[-3:])
    if min(shape) < 1:
        raise UserError(
            f'--shape {" ".join(map(str, shape))} is no size of a clip; give frames, '
            'height and width of 1 or more.'
        )
    return tuple(shape)


def pad(
    model: nn.Module, shape: tuple[int, int, int], of_images: bool
) -> tuple[int, int, int]:
    """The size of a clip behind the data preprocessor."""
    frames, *sides = shape
    clip = torch.zeros(3, *(sides if of_images else shape), dtype=torch.uint8)
    sample = ActionDataSample(metainfo=dict(img_shape=tuple(sides)))
    data = model.data_preprocessor(dict(inputs=[clip], data_samples=[sample]))
    return (frames, *data['inputs'].shape[-2:])


def shapes_of(feats: object) -> list[str]:
    """C x T x H x W of each map."""
    maps = as_maps(feats)
    if maps is None:
        return [describe(feats)]
    return ['x'.join(map(str, feat.shape[1:])) for feat in maps]


def trace_parts(probe: Probe, clip: tuple[int, int, int]) -> Trace:
    """What is known of the parts' outputs.

    Raises:
        UserError: The backbone does not take the clip.
    """
    try:
        return probe.trace(clip, shrinking=(1,))
    except Refusal as refusal:
        if refusal.is_of_shapes:
            raise UserError(
                f'The {probe.parts[refusal.index]} cannot take {describe(refusal.feats)}'
                f' of a clip of {"x".join(map(str, clip))} ({refusal.reason}); give '
                'another --shape T H W, or change the config.'
            ) from refusal.error
        return refusal.trace


def list_rows(
    model: nn.Module, cfg: Config, shape: tuple[int, int, int]
) -> Iterator[tuple[str, str, list[str], list[str], nn.Module]]:
    """Part, type, what goes in, what comes out, and the module."""
    of_images = getattr(model, 'of_images', False)
    clip = pad(model, shape, of_images)
    if hasattr(model, 'check_parts'):
        model.check_parts(cfg.model, clip_len=clip[0])
    inputs = [f'3x{"x".join(map(str, clip))}']
    preprocessor = model.data_preprocessor
    given = [f'3x{"x".join(map(str, shape))}']
    yield 'data_preprocessor', type(preprocessor).__name__, given, inputs, preprocessor

    parts = list_parts(model, cfg.model)
    trace = trace_parts(Probe(parts, of_images=of_images), clip)
    for part, feats in zip_longest(parts, trace.feats):
        outputs = UNKNOWN if feats is None else shapes_of(feats)
        name = part.place.removeprefix('model.')
        yield name, part.type_name, inputs, outputs, part.module
        inputs = outputs

    maps = as_maps(trace.feats[-1]) if len(trace.feats) == len(parts) else None
    for name, child in model.named_children():
        if name in ('data_preprocessor', 'backbone', 'neck'):
            continue
        given, outputs = UNKNOWN, UNKNOWN
        if isinstance(child, QueryDecoder):
            if maps is not None:
                strides = child.strides or derive_strides(maps, clip[1:])
                given = [f'strides {", ".join(f"{stride:g}" for stride in strides)}']
            outputs = [f'{len(child.stages)} stages of {child.num_queries} queries']
            inputs = outputs
        elif name == 'head' and isinstance(
            getattr(model, 'decoder', None), QueryDecoder
        ):
            given, outputs = inputs, [f'boxes, {child.num_classes - 1} actions']
        yield name, type(child).__name__, given, outputs, child


def print_table(model: nn.Module, cfg: Config, shape: tuple[int, int, int]) -> None:
    rows = [('part', 'type', 'in', 'out', 'parameters (M)')]
    unknown = []
    for name, kind, inputs, outputs, module in list_rows(model, cfg, shape):
        count = sum(parameter.numel() for parameter in module.parameters()) / 1e6
        labels = [(name, kind, f'{count:,.3f}')]
        for label, one, other in zip_longest(labels, inputs, outputs, fillvalue=''):
            part, kind, number = label or ('', '', '')
            rows.append((part, kind, one, other, number))
        if outputs is UNKNOWN:
            unknown.append(name)
    total = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    rows.append(('total', type(model).__name__, '', '', f'{total:,.3f}'))
    print('maps of a clip: channels x frames x height x width, finest first')
    print(format_table(rows, left=4))
    if unknown:
        print(f'What {", ".join(unknown)} makes of this is not known here.')


def run(args: argparse.Namespace) -> None:
    quieten()
    cfg = read_config(args.config, args.cfg_options)
    shape = clip_shape(cfg, args.shape)
    with unnoticed():
        print_table(construct_model(cfg), cfg, shape)


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
