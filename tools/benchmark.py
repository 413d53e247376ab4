"""Time the decoder against the literal formulation, turn by turn in one process."""

import argparse
import gc
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from stmixer_mm.apis.config import check_device
from stmixer_mm.command_line import Count, OptionsOf, run_main
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.decoder.mixing.adaptive_mixing import AdaptiveMixing
from stmixer_mm.models.decoder.sampling.backends import (
    SAMPLING_BACKENDS,
    choose_backend,
)
from stmixer_mm.projects.profiling.memory import bytes_in_use, peak_bytes
from stmixer_mm.projects.profiling.meter import machine, take_turns
from stmixer_mm.projects.profiling.models import quieten
from stmixer_mm.registry import MODELS

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

STRIDES = (4, 8, 16, 32)
SIZES = ('mode', 'batch', 'frames', 'queries', 'points', 'size', 'dtype')
COLUMNS = dict(
    ours_s='ours s',
    literal_s='literal s',
    ratio='ratio',
    matmul_s='products s',
    over_matmul='ours / products',
    float32_ratio='to float32',
    ours_peak_mb='peak MB',
    literal_peak_mb='literal',
    ours_kept_mb='kept MB',
    literal_kept_mb='literal',
)


def clip_size(text: str) -> str:
    if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', text):
        raise argparse.ArgumentTypeError(f"'{text}' is not HxW, as in 256x320")
    return text


def sides_of(size: str) -> tuple[int, int]:
    height, width = map(int, size.split('x'))
    return height, width


@dataclass(kw_only=True)
class Options:
    """
    Args:
        batch: Clips.
        frames: Of the feature maps.
        points: Of a group.
        size: Of the clip.
        dtype: Half precision by autocast; compared with ours in float32, too.
        compile: Compile our stages.
        packed: Pack the weights of our adaptive mixing, as with detect --fast; for
            evaluation in float32 on the CPU.
        json: Write the rows to this file.
    """

    mode: Sequence[Literal['forward', 'train']] = ('forward',)
    batch: Sequence[Count] = (1,)
    frames: Sequence[Count] = (4,)
    queries: Sequence[Count] = (100,)
    points: Sequence[Count] = (32,)
    size: Sequence[Annotated[str, clip_size, dict(metavar='HxW')]] = ('256x320',)
    dtype: Sequence[Literal['float32', 'bfloat16', 'float16']] = ('float32',)
    stages: Count = 6
    backend: Literal['auto', *sorted(SAMPLING_BACKENDS)] = 'auto'
    compile: bool = False
    packed: bool = False
    device: str = 'cpu'
    turns: Count = 7
    json: str | None = None


def main(*, options: Annotated[dict, OptionsOf(Options)]) -> None:
    """Time the decoder against the literal formulation, turn by turn in one process.

    The literal formulation samples every point in every frame and level and stores it
    all, and mixes all groups at once; weights and all else are the same. Options with
    several values make a row for each combination.
    """
    args = Options(**options)
    kinds = [*args.mode], [*args.dtype], args.device
    if args.packed and kinds != (['forward'], ['float32'], 'cpu'):
        raise UserError('--packed is for evaluation in float32 on the CPU.')
    check_json_path(args.json)
    check_device(args.device)
    quieten()
    cases = itertools.product(*(getattr(args, key) for key in SIZES))
    rows = [measure(dict(zip(SIZES, case, strict=True)), args) for case in cases]
    print_rows(rows)
    write_json(args.json, rows)


def time_runs(bench: 'DecoderBench') -> dict[str, float]:
    """Seconds of ours, of the literal formulation, and of its matrix products alone."""
    ours = partial(bench.run, bench.ours)
    runs = dict(ours=ours, literal=partial(bench.run, bench.literal))
    if bench.case['dtype'] != 'float32':
        runs['float32'] = partial(ours, dtype='float32')
    with Products() as products:
        bench.run(bench.literal)
    runs['matmul'] = products.repeat
    return take_turns(runs, turns=bench.args.turns, device=bench.device)


def measure(case: dict, args: Options) -> dict:
    """One row of the table."""
    bench = DecoderBench(case, args)
    device, seconds = bench.device, time_runs(bench)
    row = dict(
        case,
        device=args.device,
        backend=choose_backend(args.backend, device),
        compiled=args.compile,
        packed=args.packed,
    )
    row |= {f'{name}_s': round(value, 5) for name, value in seconds.items()}
    row['ratio'] = round(seconds['literal'] / seconds['ours'], 3)
    if 'float32' in seconds:
        row['float32_ratio'] = round(seconds['float32'] / seconds['ours'], 3)
    row['over_matmul'] = round(seconds['ours'] / seconds['matmul'], 3)
    for name, decoder in dict(ours=bench.ours, literal=bench.literal).items():
        gc.collect()
        peak = peak_bytes(partial(bench.run, decoder), device)
        row[f'{name}_peak_mb'] = round(peak / 1e6, 1)
        if bench.is_training:
            base_bytes = bytes_in_use(device)
            outputs = bench.forward(decoder)
            output_bytes = bytes_in_use(device) - base_bytes
            row[f'{name}_kept_mb'] = round(output_bytes / 1e6, 1)
            del outputs
    return row | dict(machine=machine(device))


class Products(TorchDispatchMode):
    """Records the matrix products of a computation, to time them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []
        self.inputs = {}  # of the first call, by shape and layout

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ('mm', 'addmm', 'bmm', 'baddbmm'):
            layouts = tuple((arg.shape, arg.stride(), arg.dtype) for arg in args)
            self.calls.append((func, self.inputs.setdefault(layouts, args)))
        return func(*args, **(kwargs or {}))

    def repeat(self) -> None:
        with torch.no_grad():
            for func, args in self.calls:
                func(*args)


class DecoderBench:
    """Our decoder and the literal one, with the same weights and inputs."""

    def __init__(self, case: dict, args: Options) -> None:
        self.case, self.args = case, args
        self.device = torch.device(args.device)
        self.is_training = case['mode'] == 'train'
        self.size = sides_of(case['size'])
        torch.manual_seed(0)
        self.literal = self.build(
            sampling_backend='grid_sample', mixing_backend='literal'
        )
        self.ours = self.build(
            sampling_backend=args.backend, compile_stages=args.compile
        )
        self.ours.load_state_dict(self.literal.state_dict())
        for module in self.ours.modules() if args.packed else ():
            if isinstance(module, AdaptiveMixing):
                module.pack()
        batch, frames = case['batch'], case['frames']
        self.feats = [
            torch.randn(
                *(batch, self.ours.embed_dims, frames),
                *(-(-side // stride) for side in self.size),
                device=self.device,
                requires_grad=self.is_training,
            )
            for stride in STRIDES
        ]

    def build(self, **backends: object) -> nn.Module:
        sizes = {
            f'num_{key}': self.case[key] for key in ('frames', 'queries', 'points')
        }
        sizes |= dict(num_stages=self.args.stages, num_classes=81)
        decoder = MODELS.build(dict(type='STMixerDecoder', **sizes, **backends))
        decoder.init_weights()
        for weight in decoder.parameters():  # otherwise all boxes stay the whole frame
            weight.data += 0.02 * torch.randn_like(weight)
        return decoder.to(self.device)

    def forward(self, decoder: nn.Module, dtype: str | None = None) -> list[Tensor]:
        dtype = getattr(torch, dtype or self.case['dtype'])
        kind, is_half = self.device.type, dtype != torch.float32
        autocast = torch.autocast(kind, dtype=dtype, enabled=is_half)
        with torch.set_grad_enabled(self.is_training), autocast:
            return self.outputs(decoder)

    def run(self, decoder: nn.Module, dtype: str | None = None) -> None:
        outputs = self.forward(decoder, dtype)
        if self.is_training:
            sum(values.float().sum() for values in outputs).backward()
            decoder.zero_grad()
            for feat in self.feats:
                feat.grad = None

    def outputs(self, decoder: nn.Module) -> list[Tensor]:
        frame = torch.tensor((0.0, 0.0, *self.size[::-1]), device=self.device)
        boxes_xyzr = xyxy_to_xyzr(frame).expand(
            self.case['batch'], decoder.num_queries, 4
        )
        decoded = decoder(self.feats, boxes_xyzr, pad_shape=self.size)
        return [values for stage in decoded.stages for values in stage]


def print_rows(rows: list[dict]) -> None:
    """Print a line per row, with the sizes that differ."""
    differing = [key for key in SIZES if len({row[key] for row in rows}) > 1]
    fixed = ', '.join(f'{key} {rows[0][key]}' for key in SIZES if key not in differing)
    columns = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    table = [(' '.join(differing), *(COLUMNS[key] for key in columns))]
    for row in rows:
        case = ' '.join(str(row[key]) for key in differing)
        values = (row.get(key) for key in columns)
        table.append(
            (case, *('' if value is None else f'{value:g}' for value in values))
        )
    print(f'{fixed}; {rows[0]["backend"]}; {json.dumps(rows[0]["machine"])}')
    print(format_table(table))


if __name__ == '__main__':
    run_main(main)
