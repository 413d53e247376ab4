"""Write a detector to a file for another runtime.

Clips go in as uint8, as the test pipeline makes them; scores and boxes of all queries
come out. The file is compared with the model before it gets its name.
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import stmixer_mm
from stmixer_mm.apis import init_detector
from stmixer_mm.checks.options import COUNT, add_cfg_options
from stmixer_mm.datasets.pipelines import dataset_configs, find_sampler
from stmixer_mm.engine.speed import speed_up
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import (
    check_writable_file,
)
from stmixer_mm.models.data_preprocessor import single_clips
from stmixer_mm.models.detectors.base import finds_tubelets
from stmixer_mm.projects.export.formats import (
    FORMATS,
    Format,
    Metadata,
    Run,
    fast_formats,
    files_of,
    format_of,
    load,
    write,
)
from stmixer_mm.projects.export.graph import refused_by_tensorrt
from stmixer_mm.projects.export.parity import LIMITS, Parity, compare
from stmixer_mm.projects.export.tensors import LEFT_OUT, TensorDetector
from stmixer_mm.projects.export.traced import SMALLEST, Traced
from stmixer_mm.projects.profiling.clips import (
    ClipPipeline,
    config_clips,
    random_clip,
    video_clips,
)
from stmixer_mm.projects.profiling.meter import take_turns

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

NUM_REAL = 4  # clips of the video
NUM_CALIBRATION = 32
TURNS = 5
AUTO = 'auto'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or the name of one in configs/')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        '--to',
        required=True,
        choices=[*FORMATS, AUTO],
        help='auto: what is fastest on this machine, of what is installed',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='file to write; with --to auto its suffix follows',
    )
    parser.add_argument(
        '--video',
        help='compare on clips of this video too; its frames give height and width',
    )
    parser.add_argument(
        '--shape',
        type=COUNT,
        nargs=3,
        metavar=('T', 'H', 'W'),
        help='frames, height and width of the clips; by default what the test pipeline '
        'makes of the video, or else of frames of 4:5',
    )
    parser.add_argument(
        '--dynamic',
        nargs='+',
        choices=['batch', 'size'],
        default=(),
        help='batch: any number of clips at once (default: one); size: any height and '
        'width (default: one)',
    )
    parser.add_argument(
        '--precision',
        choices=['fp32', 'fp16', 'bf16', 'int8', AUTO],
        default='fp32',
        help='in which most is multiplied; int8 learns ranges from clips of the training '
        'set, or of the video; auto: what is fastest here (default: %(default)s)',
    )
    parser.add_argument(
        '--label-map', help='label map (pbtxt) with the names of actions'
    )
    add_cfg_options(parser)
    return parser.parse_args()


def clips_of_video(cfg: Config, video: str, count: int) -> Tensor:
    pipeline = ClipPipeline(cfg, 'test', source='video')
    return clips_of(video_clips(video, count, persons=1, num_classes=2), pipeline)


def clips_of(infos: list[dict], pipeline: ClipPipeline) -> Tensor:
    """Clips (B, 3, T, h, w) of the most frequent shape; others are left out."""
    clips = single_clips(pipeline(info)['inputs'] for info in infos)
    shape, _ = Counter(clip.shape for clip in clips).most_common(1)[0]
    return torch.stack([clip for clip in clips if clip.shape == shape])


def noise(*shape: int) -> Tensor:
    """Two clips (T, h, w) of noise."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8, generator=generator)


def clips_to_compare(
    cfg: Config, args: argparse.Namespace, real: Tensor | None
) -> dict[str, Tensor]:
    """Clips of noise, and real ones: of the video or those given, if any."""
    clips = {} if real is None else dict(real=real)
    if args.video:
        clips['real'] = clips_of_video(cfg, args.video, NUM_REAL)
    if args.shape is None and clips:
        shape = clips['real'].shape[-3:]
    else:
        (clip,) = random_clip(cfg, shape=args.shape)['inputs']
        shape = clip.shape[-3:]
    if args.video and clips['real'].shape[-3:] != shape:
        raise UserError(
            f'--shape is {tuple(shape)}, but the test pipeline makes clips of '
            f'{tuple(clips["real"].shape[-3:])} of {args.video}; leave one of the two out.'
        )
    clips = {'random': noise(*shape), **clips}
    if 'size' in args.dynamic:
        frames, height, width = shape
        if min(height, width) < SMALLEST:
            raise UserError(
                f'--dynamic size is for clips from {SMALLEST} pixels of height and width '
                f'on, but these are {tuple(shape)}; give a larger --shape or video.'
            )
        clips['random, other size'] = noise(frames, height * 4 // 3, width * 5 // 4)
    return clips


def clips_for_int8(
    cfg: Config, args: argparse.Namespace
) -> tuple[list[np.ndarray], Tensor]:
    """Clips to calibrate with, and a few to compare.

    They are of the video, or else of the training set, of which other ones are compared
    if there are enough.
    """
    if args.video:
        clips = clips_of_video(cfg, args.video, NUM_CALIBRATION)
    else:
        infos = config_clips(cfg, 'train', NUM_CALIBRATION)
        clips = clips_of(infos, ClipPipeline(cfg, 'test'))
    sizes = 1 if 'size' in args.dynamic else 3
    if args.shape and [*clips.shape[-3:]][:sizes] != args.shape[:sizes]:
        raise UserError(
            f'int8 learns ranges from clips, and these are {tuple(clips.shape[-3:])}, '
            f'not of --shape {tuple(args.shape)}; leave that out, or give another --video.'
        )
    calibration = [clip.numpy() for clip in clips.split(1)]
    if not args.video:
        calibration = calibration[:-NUM_REAL] or calibration
    print(f'int8 learns ranges from {len(calibration)} clips')
    return calibration, clips[-NUM_REAL:]


def ways_of(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Formats and precisions to try.

    Raises:
        UserError: there is none.
    """
    forms = {args.to: FORMATS[args.to]} if args.to != AUTO else fast_formats()
    if args.precision == AUTO:
        return [
            (name, precision)
            for name, form in forms.items()
            for precision in form.fast or form.precisions
        ]
    if args.to != AUTO:
        forms[args.to].check_precision(args.precision)
        return [(args.to, args.precision)]
    names = [name for name, form in forms.items() if args.precision in form.fast]
    if not names:
        raise UserError(
            f'No format that runs here is fast in {args.precision}; take --precision '
            'auto, or name a format with --to.'
        )
    return [(name, args.precision) for name in names]


class Made(NamedTuple):
    """A file that is written, but not yet under its name."""

    name: str
    form: Format
    precision: str
    file: Path
    run: Run
    parities: dict[str, Parity]
    is_met: bool


def make(
    name: str,
    detector: TensorDetector,
    traced: Traced,
    metadata: Metadata,
    folder: Path,
    clips: dict[str, Tensor],
    calibration: Sequence[np.ndarray],
) -> Made:
    form = FORMATS[name]
    file = folder / f'{name}-{metadata.precision}{form.suffix}'
    write(traced, metadata, file, form, calibration=calibration)
    run, _ = load(file)
    parities = {
        of: compare(detector, run, each, batch=metadata.batch)
        for of, each in clips.items()
    }
    limits = LIMITS[metadata.precision]
    is_met = all(
        parity.is_met(limits)
        for of, parity in parities.items()
        if metadata.precision != 'int8' or of == 'real'  # noise is out of its ranges
    )
    precision = metadata.precision
    return Made(f'{name} {precision}', form, precision, file, run, parities, is_met)


def print_parities(made: list[Made]) -> None:
    rows = [('', 'clips', 'person scores', 'action scores', 'pixels', 'kept by both')]
    for one in made:
        for of, parity in one.parities.items():
            rows.append(
                (
                    f'{one.name}, {of}' + ('' if one.is_met else ': too much'),
                    f'{parity.clips}',
                    f'{parity.person_scores:.1e}',
                    f'{parity.action_scores:.1e}',
                    f'{parity.pixels:.1e}',
                    f'{parity.agreed} of {parity.kept}',
                )
            )
    print('largest differences from PyTorch')
    print(format_table(rows, left=1))


def find_fastest(
    made: list[Made], rivals: dict[str, Callable[[Tensor], object]], clip: Tensor
) -> Made | None:
    """The fastest of the files, in turns with rivals; None: a rival is."""
    runs = {name: partial(rival, clip) for name, rival in rivals.items()}
    runs |= {one.name: partial(one.run, clip.numpy()) for one in made}
    with torch.inference_mode():
        seconds = take_turns(runs, turns=TURNS, device=clip.device)
    rows = [('', 'seconds a clip', 'ratio')]
    for name in sorted(seconds, key=seconds.get):
        ratio = seconds[next(iter(rivals))] / seconds[name]
        rows.append((name, f'{seconds[name]:.3f}', f'{ratio:.2f}'))
    print(format_table(rows, left=1))
    fastest = min(seconds, key=seconds.get)
    print(f'fastest here: {fastest}')
    return next((one for one in made if one.name == fastest), None)


def metadata_of(
    model: nn.Module, args: argparse.Namespace, shape: list[int]
) -> Metadata:
    """All metadata but the precision."""
    transforms = next(dataset_configs(model.cfg, 'test'), {}).get('pipeline') or []
    sampler = find_sampler(transforms)
    preprocessor = model.data_preprocessor
    return Metadata(
        version=stmixer_mm.__version__,
        classes=None if model.classes is None else [*model.classes],
        shape=[shape[0], None, None] if 'size' in args.dynamic else shape,
        batch=None if 'batch' in args.dynamic else 1,
        frame_interval=transforms[sampler].get('frame_interval', 1),
        mean=preprocessor.mean.flatten().tolist(),
        std=preprocessor.std.flatten().tolist(),
        score_thr=model.head.score_thr,
        tubelets=finds_tubelets(model),
    )


def run(args: argparse.Namespace) -> None:
    ways, is_auto = ways_of(args), AUTO in (args.to, args.precision)
    check_outputs(args, ways)
    if format_of(args.checkpoint):
        raise UserError(
            f'{args.checkpoint} is exported already; give the checkpoint that it was '
            'made from.'
        )
    model = init_detector(
        args.config,
        args.checkpoint,
        label_map=args.label_map,
        cfg_options=args.cfg_options,
    )
    calibration, real = (), None
    if any(precision == 'int8' for _, precision in ways):
        others = [way for way in ways if way[1] != 'int8']
        try:
            calibration, real = clips_for_int8(model.cfg, args)
        except UserError as error:
            if not others:
                raise
            print(f'int8 is left out: {error}')
            ways = others
    clips = clips_to_compare(model.cfg, args, real)
    shape = [*clips['random'].shape[-3:]]
    detector = TensorDetector(model).eval()
    for name in LEFT_OUT:
        if getattr(model, name) is not None:
            print(f'{name} is left out: what it does depends on the persons found')
    metadata = metadata_of(model, args, shape)
    traced = Traced(detector, shape, metadata.batch, any_size='size' in args.dynamic)
    with TemporaryDirectory(prefix='.part-', dir=args.out.parent) as folder:
        made = []
        for name, precision in ways:
            way = replace(metadata, precision=precision)
            try:
                made.append(
                    make(name, detector, traced, way, Path(folder), clips, calibration)
                )
            except UserError as error:
                if not is_auto:
                    raise
                print(f'{name} {precision} is left out: {error}')
        if not made:
            raise UserError(
                f'{args.out} is not written: no format takes this model (see above); '
                'take another part of the model.'
            )
        print_parities(made)
        fit = [one for one in made if one.is_met]
        if not fit:
            limits = LIMITS[made[0].precision]
            raise UserError(
                f'{args.out} is not written: scores differ by more than {limits.scores:g} '
                f'or boxes by more than {limits.pixels:g} pixels (see above); take '
                'another format or precision.'
            )
        chosen = fit[0]
        if is_auto:
            rivals = {'the checkpoint': detector}
            if args.precision == AUTO:
                rivals['the checkpoint with --fast'] = speed_up(deepcopy(detector))
            chosen = find_fastest(fit, rivals, clips['random'][:1])
        if chosen is None:
            print('Keep the checkpoint: nothing is written.')
            return
        files = keep(chosen, args)
    size = sum(file.stat().st_size for file in files)
    sizes = ', '.join('any' if each is None else f'{each}' for each in metadata.shape)
    print(f'{files[-1]}: {size / 1e6:.1f} MB, clips [{sizes}]')
    if args.to == 'onnx':
        refused = ', '.join(refused_by_tensorrt(traced.onnx)) or 'none of its operators'
        print(f'TensorRT, by its published list, refuses {refused}')


def check_outputs(args: argparse.Namespace, ways: list[tuple[str, str]]) -> None:
    """Raises ``UserError`` unless what --to makes can be written."""
    if args.to != AUTO:
        check_output(args.out, FORMATS[args.to])
        return
    check_writable_file(args.out, purpose='--out')
    for name, _ in ways:
        check_writable_file(name_of(args.out, FORMATS[name]), purpose='--out')


def keep(made: Made, args: argparse.Namespace) -> list[Path]:
    """Give a file its name; returns what is there now."""
    out = args.out
    if args.to == AUTO:
        out = name_of(out, made.form)
        check_output(out, made.form)
    if made.form.beside:  # lest one file is new and the other old
        out.unlink(missing_ok=True)
    files = files_of(out, made.form)
    for part, file in zip(files_of(made.file, made.form), files, strict=True):
        os.replace(part, file)
    return files


def name_of(out: Path, form: Format) -> Path:
    """The file of --to auto, whose --out may have a format's suffix or none."""
    if format_of(out) is None:
        return out.with_name(out.name + form.suffix)
    return out if out.suffix.lower() == form.suffix else out.with_suffix(form.suffix)


def check_output(file: Path, form: Format) -> None:
    check_writable_file(file, purpose='--out', suffixes=(form.suffix,))


if __name__ == '__main__':
    with user_errors():
        run(parse_args())
