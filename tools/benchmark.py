"""Time the decoder against the literal formulation, turn by turn in one process.

The literal formulation samples every point in every frame and level and stores it all
(sampling_backend='grid_sample'), and mixes all groups at once (mixing_backend=
'literal'); it shares the weights and everything else with ours. Options with several
values make a row for each combination; --sweep varies one size at a time.

With --runtime, a whole detector is timed in several runtimes instead.
"""

import argparse
import gc
import itertools
import json
import re
import statistics
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from stmixer_mm.checks.config import check_device
from stmixer_mm.checks.options import COUNT
from stmixer_mm.engine.optim import FusedAdamW
from stmixer_mm.engine.speed import make_convolutions_lean, speed_up
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, check_writable_file, write_json
from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.decoder.mixing.adaptive_mixing import AdaptiveMixing
from stmixer_mm.models.decoder.sampling.backends import (
    SAMPLING_BACKENDS,
    choose_backend,
    make_sampler,
)
from stmixer_mm.projects.export.formats import (
    FORMATS,
    Metadata,
    fast_formats,
    load,
    write,
)
from stmixer_mm.projects.export.tensors import TensorDetector
from stmixer_mm.projects.export.traced import Traced
from stmixer_mm.projects.profiling.clips import ClipPipeline, random_clip
from stmixer_mm.projects.profiling.memory import (
    bytes_kept_for_backward,
    peak_bytes,
    resident_bytes,
)
from stmixer_mm.projects.profiling.meter import machine, take_turns
from stmixer_mm.projects.profiling.models import build_model, quieten, read_config
from stmixer_mm.registry import MODELS

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LITERAL = dict(sampling_backend='grid_sample', mixing_backend='literal')
STRIDES = (4, 8, 16, 32)
CONFIG = 'stmixer_slowonly-r50_8xb2-4x16x1-12e_ava22-rgb'
AUTO = 'auto'
# Names of export formats; None: the model as it is.
RUNTIMES = dict(
    torch=None,
    inductor='inductor',
    onnxruntime='onnx',
    openvino='openvino',
    tensorrt='tensorrt',
)
# Types of operators and of GPU kernels, by what is in their names.
OPERATORS = dict(
    products=('mm', 'conv', 'linear', 'gemm', 'cutlass', 'nvjet', 'attention', 'xmma'),
    sampling=('embedding_bag', 'means', 'gradients_kernel', 'deform', 'grid_sampl'),
    copies=('copy', 'memcpy', 'memset', 'aten::cat', 'fill', 'elementwise_kernel_with'),
)
SWEEP = dict(
    batch=[1, 2, 4],
    queries=[50, 100, 200, 400],
    frames=[2, 4, 8, 16],
    points=[16, 32, 64],
)
COLUMNS = dict(
    ours_s='ours s',
    literal_s='literal s',
    ratio='ratio',
    matmul_s='products s',
    over_matmul='ours / products',
    products_part='products',
    sampling_part='sampling',
    copies_part='copies',
    others_part='others',
    idle_part='idle',
    launches='launches',
    float32_ratio='to float32',
    ours_peak_mb='peak MB',
    literal_peak_mb='literal',
    ours_kept_mb='kept MB',
    literal_kept_mb='literal',
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    several = partial(parser.add_argument, nargs='+')
    several('--mode', choices=['forward', 'train'], default=['forward'])
    several(
        '--part',
        choices=['decoder', 'sampling', 'model'],
        default=['decoder'],
        help='sampling: that of all stages, without the rest; model: that of --config, '
        'backbone and losses included, in the sizes of the config but for --size',
    )
    several(
        '--runtime',
        choices=[*RUNTIMES, AUTO],
        help='time the detector of --config in these; auto: in all that are here',
    )
    several(
        '--precision',
        choices=['fp32', 'fp16', 'bf16', 'int8', AUTO],
        default=['fp32'],
        help='with --runtime; auto: those that may be fast (default: fp32)',
    )
    parser.add_argument(
        '--config', default=CONFIG, help='of a whole detector (default: %(default)s)'
    )
    several('--batch', type=COUNT, default=[1], help='clips')
    several('--frames', type=COUNT, default=[4], help='of the feature maps')
    several('--queries', type=COUNT, default=[100])
    several('--points', type=COUNT, default=[32], help='of a group')
    several(
        '--size', type=clip_size, default=['256x320'], metavar='HxW', help='of the clip'
    )
    several(
        '--dtype',
        choices=['float32', 'bfloat16', 'float16'],
        default=['float32'],
        help='half precision by autocast; compared with ours in float32, too',
    )
    parser.add_argument('--stages', type=COUNT, default=6)
    parser.add_argument(
        '--backend', choices=['auto', *sorted(SAMPLING_BACKENDS)], default='auto'
    )
    parser.add_argument('--compile', action='store_true', help='compile our stages')
    parser.add_argument(
        '--with-cp',
        action='store_true',
        help='checkpoint our stages; with --part model the backbone instead',
    )
    parser.add_argument(
        '--lean', action='store_true', help='ours trains with LeanConvolutionsHook'
    )
    parser.add_argument(
        '--packed',
        action='store_true',
        help="adaptive mixing of ours has packed weights, as with demo.py's --fast",
    )
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--turns', type=COUNT, default=7)
    parser.add_argument(
        '--profile', action='store_true', help='say what the time of ours goes into'
    )
    parser.add_argument(
        '--sweep', action='store_true', help='vary batch, queries, frames and points'
    )
    parser.add_argument('--plot', metavar='FILE', help='draw a sweep into this picture')
    parser.add_argument('--json', metavar='FILE', help='write the rows to this file')
    args = parser.parse_args()
    if args.sweep and (args.part != ['decoder'] or args.runtime):
        parser.error('--sweep is of the decoder: leave --part and --runtime out.')
    kinds = args.mode, args.dtype, args.device
    if args.packed and kinds != (['forward'], ['float32'], 'cpu'):
        parser.error('--packed is for evaluation in float32 on the CPU alone.')
    if args.plot and not args.sweep:
        parser.error('--plot draws a sweep: add --sweep.')
    return args


def sides_of(size: str) -> tuple[int, int]:
    height, width = map(int, size.split('x'))
    return height, width


def clip_size(text: str) -> str:
    if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not HxW; write it as in 256x320."
        )
    return text


def main() -> None:
    args = parse_args()
    with user_errors():
        check_json_path(args.json)
        check_device(args.device)
        if args.plot:
            check_writable_file(
                args.plot, purpose='--plot', suffixes=('.png', '.pdf', '.svg')
            )
        quieten()
        if args.runtime:
            rows = [
                row
                for batch, size in itertools.product(args.batch, args.size)
                for row in compare_runtimes(batch, size, args)
            ]
        else:
            rows = [measure(case, args) for case in make_cases(args)]
            print_rows(rows, args)
        write_json(args.json, rows)
        if args.plot:
            draw_sweep(rows, args.plot)


def make_cases(args: argparse.Namespace) -> list[dict]:
    """The sizes of each row."""
    keys = ('mode', 'part', 'batch', 'frames', 'queries', 'points', 'size', 'dtype')
    values = itertools.product(*(getattr(args, key) for key in keys))
    cases = [dict(zip(keys, value, strict=True)) for value in values]
    if args.sweep:
        cases = [
            case | {size: value}
            for case in cases
            for size, values in SWEEP.items()
            for value in values
        ]
    return list({tuple(case.values()): case for case in cases}.values())


def measure(case: dict, args: argparse.Namespace) -> dict:
    """One row of the table."""
    device = torch.device(args.device)
    bench = (ModelBench if case['part'] == 'model' else DecoderBench)(case, args)
    if args.packed:
        for module in bench.modules[0].modules():
            if isinstance(module, AdaptiveMixing):
                module.pack()
    runs = {'ours': bench.ours, 'literal': bench.literal}
    if case['dtype'] != 'float32':
        runs['float32'] = partial(bench.ours, dtype='float32')
    if case['part'] == 'decoder':
        runs['matmul'] = record_products(bench.literal, device)
    seconds = take_turns(runs, turns=args.turns, device=device)
    ram = measure_ram(bench, device)
    row = dict(
        case,
        device=args.device,
        backend=choose_backend(args.backend, device),
        compiled=args.compile,
        packed=args.packed,
        with_cp=args.with_cp,
        **{f'{name}_s': round(value, 5) for name, value in seconds.items()},
        ratio=round(seconds['literal'] / seconds['ours'], 3),
        **ram,
        machine=machine(device),
    )
    row.setdefault('matmul_s', None)
    if 'matmul' in seconds:
        row['over_matmul'] = round(seconds['ours'] / seconds['matmul'], 3)
    if 'float32' in seconds:
        row['float32_ratio'] = round(seconds['float32'] / seconds['ours'], 3)
    if args.profile:
        row |= profile(bench.ours, seconds['ours'], device)
    return row


class Bench:
    """Ours and the literal formulation of one case, on the same weights and inputs."""

    modules: tuple[torch.nn.Module, torch.nn.Module]  # ours and the literal one
    leaves: list[torch.Tensor]  # inputs

    def __init__(self, case: dict, args: argparse.Namespace) -> None:
        self.case, self.args = case, args
        self.device = torch.device(args.device)
        torch.manual_seed(0)
        self.height, self.width = sides_of(case['size'])
        self.is_training = case['mode'] == 'train'

    def ours(self, dtype: str | None = None, *, backward: bool = True):
        return self.run(self.modules[0], dtype, backward=backward)

    def literal(self, dtype: str | None = None, *, backward: bool = True):
        return self.run(self.modules[1], dtype, backward=backward)

    def step(self, module: torch.nn.Module) -> None:
        """What follows the backward pass."""

    def run(self, module: torch.nn.Module, dtype: str | None, *, backward: bool):
        dtype = getattr(torch, dtype or self.case['dtype'])
        autocast = torch.autocast(
            self.device.type, dtype=dtype, enabled=dtype != torch.float32
        )
        with torch.set_grad_enabled(self.is_training), autocast:
            outputs = self.outputs(module)
            loss = sum(values.float().sum() for values in outputs)
        if self.is_training and backward:
            loss.backward()
            self.step(module)
            module.zero_grad()
            for leaf in self.leaves:
                leaf.grad = None
        return outputs


def make_boxes_move(decoder: torch.nn.Module) -> None:
    """Change the weights, with which all boxes stay the whole frame at first."""
    for weight in decoder.parameters():
        weight.data += 0.02 * torch.randn_like(weight)


class ModelBench(Bench):
    """The whole detector of ``--config``; in training with losses and optimiser."""

    def __init__(self, case: dict, args: argparse.Namespace) -> None:
        super().__init__(case, args)
        self.cfg = read_config(args.config)
        literal = self.build(LITERAL)
        if args.with_cp:
            self.cfg.model.backbone.with_cp = True
        ours = self.build(
            dict(sampling_backend=args.backend, compile_stages=args.compile)
        )
        ours.load_state_dict(literal.state_dict())
        if args.lean:
            make_convolutions_lean(ours)
        self.modules = ours, literal
        self.optimizers = {
            ours: FusedAdamW(ours.parameters(), lr=1e-9),
            literal: torch.optim.AdamW(literal.parameters(), lr=1e-9),
        }
        clip_len = ClipPipeline(self.cfg, 'test').clip_len
        clip = random_clip(self.cfg, shape=(clip_len, self.height, self.width))
        batch = {key: values * case['batch'] for key, values in clip.items()}
        self.batch = literal.data_preprocessor(batch, training=self.is_training)
        self.leaves = []

    def build(self, choices: dict) -> torch.nn.Module:
        cfg = deepcopy(self.cfg)
        cfg.model.decoder.update(choices)
        model = build_model(cfg, device=self.args.device).train(self.is_training)
        make_boxes_move(model.decoder)
        return model

    def step(self, model: torch.nn.Module) -> None:
        self.optimizers[model].step()

    def outputs(self, model: torch.nn.Module) -> list[torch.Tensor]:
        if self.is_training:
            return [*model(**self.batch, mode='loss').values()]
        return [
            values for stage in model(**self.batch, mode='tensor') for values in stage
        ]


class DecoderBench(Bench):
    """A decoder, or its sampling."""

    def __init__(self, case: dict, args: argparse.Namespace) -> None:
        super().__init__(case, args)
        decoder = dict(
            type='STMixerDecoder',
            num_frames=case['frames'],
            num_queries=case['queries'],
            num_points=case['points'],
            num_stages=args.stages,
            strides=STRIDES,
        )
        self.literal_decoder = MODELS.build(decoder | LITERAL)
        self.literal_decoder.init_weights()
        make_boxes_move(self.literal_decoder)
        self.decoder = MODELS.build(
            dict(
                decoder,
                sampling_backend=args.backend,
                with_cp=args.with_cp,
                compile_stages=args.compile,
            )
        )
        self.decoder.load_state_dict(self.literal_decoder.state_dict())
        self.modules = (
            self.decoder.to(self.device),
            self.literal_decoder.to(self.device),
        )
        self.feats = [
            torch.randn(
                case['batch'],
                self.decoder.embed_dims,
                case['frames'],
                -(-self.height // stride),
                -(-self.width // stride),
                device=self.device,
                requires_grad=self.is_training,
            )
            for stride in STRIDES
        ]
        self.points = [self.make_points() for _ in range(args.stages)]
        self.leaves = [*self.feats, *self.points]

    def make_points(self) -> torch.Tensor:
        """Points in and around boxes anywhere, of 32 to 256 pixels."""
        shape = self.case['batch'], self.case['queries']
        size = torch.tensor([self.width, self.height])
        centres = torch.rand(*shape, 1, 1, 2) * size
        z = 5 + 3 * torch.rand(*shape, 1, 1, 1)
        offsets = torch.randn(
            *shape, self.decoder.num_groups, self.case['points'], 3
        ) * torch.cat((0.4 * z.exp2().expand(*shape, 1, 1, 2), torch.ones_like(z)), -1)
        points = torch.cat((centres, z), dim=-1) + offsets
        return points.to(self.device).requires_grad_(self.is_training)

    def outputs(self, decoder: torch.nn.Module) -> list[torch.Tensor]:
        if self.case['part'] == 'decoder':
            return self.run_decoder(decoder)
        return self.run_sampling(decoder.sampling_backend)

    def run_decoder(self, decoder: torch.nn.Module) -> list[torch.Tensor]:
        size = self.height, self.width
        frame = torch.tensor((0.0, 0.0, size[1], size[0]), device=self.feats[0].device)
        boxes_xyzr = xyxy_to_xyzr(frame).expand(
            self.case['batch'], decoder.num_queries, 4
        )
        stages = decoder(self.feats, boxes_xyzr, pad_shape=size)
        return [values for stage in stages for values in stage]

    def run_sampling(self, backend: str) -> list[torch.Tensor]:
        sampler = make_sampler(
            self.feats,
            strides=STRIDES,
            num_groups=self.decoder.num_groups,
            backend=backend,
        )
        return [mean for points in self.points for mean in sampler(points)]


def measure_ram(bench: Bench, device: torch.device) -> dict[str, float]:
    """What a run takes at its peak, and what is kept for its backward pass."""
    ram = {}
    given = [*bench.leaves]
    for module in bench.modules:
        given += [*module.parameters(), *module.buffers()]
    for name, run in (('ours', bench.ours), ('literal', bench.literal)):
        gc.collect()
        ram[f'{name}_peak_mb'] = round(peak_bytes(run, device) / 1e6, 1)
        if bench.is_training:
            forward = partial(run, backward=False)
            kept = bytes_kept_for_backward(forward, given)
            ram[f'{name}_kept_mb'] = round(kept / 1e6, 1)
    return ram


def profile(
    run: Callable[[], object], seconds: float, device: torch.device
) -> dict[str, float]:
    """Shares of the time by type of operator or kernel, and how many there are.

    The rest of the seconds that it takes unprofiled is idle: on a GPU, the wait for
    launches.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        run()
    spent = dict.fromkeys((*OPERATORS, 'others'), 0.0)
    launches = 0
    for event in profiler.key_averages():
        if device.type == 'cuda':
            if event.device_type == torch.autograd.DeviceType.CPU:
                continue
            elapsed = event.self_device_time_total
        else:
            elapsed = event.self_cpu_time_total
        launches += event.count
        name = event.key.lower()
        types = (
            type_
            for type_, words in OPERATORS.items()
            if any(word in name for word in words)
        )
        spent[next(types, 'others')] += elapsed / 1e6
    shares = {f'{type_}_part': round(s / seconds, 3) for type_, s in spent.items()}
    idle = max(0.0, 1 - sum(spent.values()) / seconds)
    return dict(shares, idle_part=round(idle, 3), launches=launches)


class _Products(TorchDispatchMode):
    """Keeps a list of the matrix products that are computed."""

    OPS = ('mm', 'addmm', 'bmm', 'baddbmm')

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.OPS:
            layouts = tuple((arg.shape, arg.stride(), arg.dtype) for arg in args)
            self.calls.append((func, layouts))
        return func(*args, **(kwargs or {}))


def record_products(
    run: Callable[[], object], device: torch.device
) -> Callable[[], None]:
    """The matrix products of a computation, and nothing else of it.

    Each is repeated on values of the same shape, layout and type.
    """
    with _Products() as products:
        run()
    inputs = {}
    for _, layouts in products.calls:
        if layouts not in inputs:
            inputs[layouts] = [random_values(*layout, device) for layout in layouts]

    @torch.no_grad()
    def replay() -> None:
        for func, layouts in products.calls:
            func(*inputs[layouts])

    return replay


def random_values(shape, stride, dtype, device) -> torch.Tensor:
    cells = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    values = torch.randn(max(cells, 1), device=device).to(dtype)
    return values.as_strided(shape, stride)


def runtimes_of(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Runtimes and precisions to compare: of the named ones, those that exist."""
    here = fast_formats()
    names = [name for name, form in RUNTIMES.items() if form in (None, *here)]
    chosen = names if AUTO in args.runtime else args.runtime
    pairs = []
    for name in chosen:
        form = FORMATS.get(RUNTIMES[name])
        has = form.precisions if form else ('fp32', 'bf16')
        fast = form.fast if form else has
        precisions = fast if AUTO in args.precision else args.precision
        pairs += [(name, precision) for precision in precisions if precision in has]
    if not pairs:
        raise UserError(
            f'--runtime {" ".join(args.runtime)} has no --precision '
            f'{" ".join(args.precision)}; take auto for one of the two.'
        )
    return [*dict.fromkeys(pairs)]


def compare_runtimes(batch: int, size: str, args: argparse.Namespace) -> list[dict]:
    """Rows of a detector with random weights in several runtimes, timed in turns."""
    cfg = read_config(args.config)
    torch.manual_seed(0)
    shape = [ClipPipeline(cfg, 'test').clip_len, *sides_of(size)]
    detector = TensorDetector(build_model(cfg)).eval()
    clips = torch.randint(0, 256, (batch, 3, *shape), dtype=torch.uint8)
    pairs = runtimes_of(args)
    runs, rows = {}, []
    with TemporaryDirectory() as folder, torch.inference_mode():
        files = write_files(pairs, detector, clips, Path(folder))
        for name, precision in pairs:
            before = resident_bytes()
            if RUNTIMES[name]:
                run = partial(load(files[name, precision])[0], clips.numpy())
            elif precision == 'fp32':
                run = partial(detector, clips)
            else:
                run = partial(speed_up(deepcopy(detector)), clips)
            run()
            held = resident_bytes() - before
            runs[f'{name} {precision}'] = run
            rows.append(dict(runtime=name, precision=precision, held_mb=held / 1e6))
        seconds = take_turns(runs, turns=args.turns, device=clips.device)
        for row, (name, run) in zip(rows, runs.items(), strict=True):
            row.update(
                seconds=round(seconds[name], 5),
                ratio=round(seconds[next(iter(runs))] / seconds[name], 3),
                held_mb=round(row['held_mb']),
                peak_mb=round(peak_bytes(run, clips.device) / 1e6),
                batch=batch,
                size=size,
                machine=machine(clips.device),
            )
    columns = ('runtime', 'precision', 'seconds', 'ratio', 'held_mb', 'peak_mb')
    table = [('runtime', '', 's', 'ratio', 'held MB', 'peak MB of a run')]
    table += [tuple(f'{row[key]}' for key in columns) for row in rows]
    print(f'{args.config}, {batch} clips {shape}; {json.dumps(rows[0]["machine"])}')
    print(format_table(table, left=2))
    fastest = min(rows, key=lambda row: row['seconds'])
    print(f'fastest here: {fastest["runtime"]} {fastest["precision"]}')
    return rows


def write_files(
    pairs: list[tuple[str, str]],
    detector: TensorDetector,
    clips: torch.Tensor,
    folder: Path,
) -> dict[tuple[str, str], Path]:
    """What the runtimes load; int8 has ranges from noise, for timing alone."""
    batch, _, *shape = clips.shape
    traced = Traced(detector, shape, batch)
    files = {}
    for name, precision in pairs:
        if RUNTIMES[name]:
            form = FORMATS[RUNTIMES[name]]
            file = folder / f'{name}-{precision}{form.suffix}'
            about = Metadata('', None, shape, batch, 1, [], [], 0.0, precision)
            write(traced, about, file, form, calibration=[clips.numpy()])
            files[name, precision] = file
    return files


def print_rows(rows: list[dict], args: argparse.Namespace) -> None:
    """Print a line per row, with the sizes that differ."""
    sizes = ('mode', 'part', 'batch', 'frames', 'queries', 'points', 'size', 'dtype')
    differing = [key for key in sizes if len({row[key] for row in rows}) > 1]
    fixed = ', '.join(f'{key} {rows[0][key]}' for key in sizes if key not in differing)
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


def draw_sweep(rows: list[dict], path: str) -> None:
    """Time and peak RAM against each size that was swept, the others fixed."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    first = {key: rows[0][key] for key in SWEEP}
    base = {key: statistics.mode(row[key] for row in rows) for key in first}
    figure, axes = pyplot.subplots(2, len(SWEEP), figsize=(3 * len(SWEEP), 5))
    for column, size in zip(axes.T, SWEEP, strict=True):
        swept = sorted(
            (
                row
                for row in rows
                if all(row[key] == base[key] for key in base if key != size)
            ),
            key=lambda row: row[size],
        )
        for axis, quantity, unit in zip(
            column, ('s', 'peak_mb'), ('s', 'MB'), strict=True
        ):
            for name in ('ours', 'literal'):
                values = [row[f'{name}_{quantity}'] for row in swept]
                axis.plot([row[size] for row in swept], values, 'o-', label=name)
            axis.set(xlabel=size, ylim=(0, None), xlim=(0, None), ylabel=unit)
    axes[0, 0].legend()
    figure.suptitle(f'decoder, {rows[0]["mode"]}, {rows[0]["device"]}')
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == '__main__':
    main()
