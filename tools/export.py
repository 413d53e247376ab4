"""Write a detector to a file for another runtime.

Clips go in as uint8, as the test pipeline makes them; scores and boxes of all queries
come out. The file is compared with the model before it gets its name.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from stmixer_mm.apis import init_detector
from stmixer_mm.command_line import CfgOptions, run_main
from stmixer_mm.engine.speed import speed_up
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_writable_dir, check_writable_file
from stmixer_mm.projects.export.candidates import (
    NUM_REAL,
    Candidate,
    describe,
    keep,
    make_candidates,
)
from stmixer_mm.projects.export.formats import FORMATS, format_of, list_ways
from stmixer_mm.projects.export.tensors import LEFT_OUT, TensorDetector
from stmixer_mm.projects.export.traced import SMALLEST, Traced
from stmixer_mm.projects.profiling.clips import (
    ClipPipeline,
    Shape,
    config_clips,
    random_clip,
    stack_clips,
    video_clips,
)
from stmixer_mm.projects.profiling.meter import take_turns

import torch
from mmengine.config import Config
from torch import Tensor

NUM_CALIBRATION = 32
TURNS = 5


def main(
    config: str,
    checkpoint: str,
    *,
    to: Literal['onnx', 'openvino', 'torch', 'inductor', 'auto'],
    out: Path,
    video: str | None = None,
    shape: Shape = None,
    dynamic: Sequence[Literal['batch', 'size']] = (),
    precision: Literal['fp32', 'fp16', 'bf16', 'int8', 'auto'] = 'fp32',
    label_map: str | None = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Write a detector to a file for another runtime.

    Clips go in as uint8, as the test pipeline makes them; scores and boxes of all
    queries come out. The file is compared with the model before it gets its name.

    Args:
        config: Config file, or the name of one in configs/.
        checkpoint: Checkpoint file or URL.
        to: Format; auto: the fastest on this machine of all that are installed.
        out: File to write; with --to auto its suffix follows.
        video: Compare on clips of this video too; they set height and width.
        shape: Frames, height and width of the clips; by default those of the test
            pipeline on the video, or else on frames of 4:5.
        dynamic: batch: any number of clips at once (default: one); size: any height
            and width (default: one).
        precision: Of most products; int8 measures ranges on clips of the video, or
            else of the training set; auto: the fastest on this machine.
        label_map: Label map (pbtxt) with the names of actions.
    """
    ways, is_auto = list_ways(to, precision), 'auto' in (to, precision)
    if to == 'auto':
        check_writable_dir(out.parent, purpose='folder of --out')
    else:
        check_writable_file(out, purpose='--out', suffixes=(FORMATS[to].suffix,))
    if format_of(checkpoint):
        raise UserError(f'{checkpoint} is exported already; give the checkpoint.')
    model = init_detector(
        config, checkpoint, label_map=label_map, cfg_options=cfg_options
    )
    detector = TensorDetector(model).eval()
    for name in LEFT_OUT:
        if getattr(model, name, None) is not None:
            print(f'{name} is left out: it depends on the persons found')
    any_size = 'size' in dynamic
    in_int8 = any(one == 'int8' for _, one in ways)
    real = None
    if video or in_int8:
        count = NUM_REAL + NUM_CALIBRATION * in_int8
        try:
            real = find_real_clips(model.cfg, video, shape, count)
        except UserError as error:
            if video or not is_auto:
                raise
            print(f'int8 is left out: {error}')
            ways = [way for way in ways if way[1] != 'int8']
    clips = choose_clips(model.cfg, real, shape, any_size=any_size)
    size = [*clips['random'].shape[-3:]]
    batch = None if 'batch' in dynamic else 1
    traced = Traced(detector, size, batch, any_size=any_size)
    size[1:] = (None, None) if any_size else size[1:]
    metadata = describe(model, size, batch)
    with TemporaryDirectory(dir=out.parent, prefix='.') as folder:
        made = make_candidates(
            ways, detector, traced, metadata, Path(folder), clips=clips, skip=is_auto
        )
        print_parities(made)
        fit = [one for one in made if one.is_met]
        if not fit:
            raise UserError(
                f'{out} is not written: no file is near enough to the model (see above); '
                'take another format or precision, or another part of the model.'
            )
        chosen = fit[0]
        if is_auto:
            rivals = {'the checkpoint': detector}
            if precision == 'auto':
                rivals['the checkpoint with --fast'] = speed_up(deepcopy(detector))
            chosen = find_fastest(fit, rivals, clips['random'][:1])
        if chosen is None:
            print('Keep the checkpoint: nothing is written.')
            return
        files = keep(chosen, out)
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    sizes = ', '.join('any' if each is None else f'{each}' for each in size)
    print(f'{files[-1]}: {megabytes:.1f} MB, clips [{sizes}]')


def find_real_clips(
    cfg: Config, video: str | None, shape: Sequence[int] | None, count: int
) -> Tensor:
    """Clips (B, 3, T, h, w) of the video, or else of the training set."""
    infos = video_clips(video, count) if video else config_clips(cfg, 'train', count)
    clips = stack_clips(infos, ClipPipeline(cfg, 'test', of_videos=bool(video)))
    if shape and clips.shape[-3:] != shape:
        raise UserError(
            f'--shape is {tuple(shape)}, but the clips of the '
            f'{"video" if video else "training set"} are {tuple(clips.shape[-3:])}; '
            'leave --shape out, or give another --video.'
        )
    return clips


def choose_clips(
    cfg: Config, real: Tensor | None, shape: Sequence[int] | None, *, any_size: bool
) -> dict[str, Tensor]:
    """Clips to compare, random and real ones."""
    if real is not None:
        shape = real.shape[-3:]
    frames, height, width = random_clip(cfg, shape=shape)['inputs'][0].shape[-3:]
    clips = dict(random=noise(frames, height, width))
    if real is not None:
        clips['real'] = real
    if any_size:
        if min(height, width) < SMALLEST:
            raise UserError(
                f'--dynamic size needs at least {SMALLEST} pixels of height and width, '
                f'but clips are {height}x{width}; give a larger --shape or video.'
            )
        clips['random, other size'] = noise(frames, height * 4 // 3, width * 5 // 4)
    return clips


def noise(*shape: int) -> Tensor:
    """Two clips (T, h, w) of noise."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8, generator=generator)


def print_parities(made: list[Candidate]) -> None:
    rows = [('', 'clips', 'person scores', 'action scores', 'pixels', 'kept by both')]
    for one in made:
        for kind, (clips, *gaps, kept, agreed) in one.parities.items():
            name = f'{one.name}, {kind}' + ('' if one.is_met else ': too far')
            gaps = (f'{gap:.1e}' for gap in gaps)
            rows.append((name, f'{clips}', *gaps, f'{agreed} of {kept}'))
    print('largest differences from PyTorch')
    print(format_table(rows, left=1))


def find_fastest(
    made: list[Candidate], rivals: dict[str, TensorDetector], clip: Tensor
) -> Candidate | None:
    """The fastest of the files; None: a rival is."""
    runs = {name: partial(rival, clip) for name, rival in rivals.items()}
    runs |= {one.name: partial(one.run, clip.numpy()) for one in made}
    with torch.inference_mode():
        seconds = take_turns(runs, turns=TURNS, device=clip.device)
    rows = [('', 'seconds a clip', 'ratio')]
    for name in sorted(seconds, key=seconds.get):
        ratio = seconds['the checkpoint'] / seconds[name]
        rows.append((name, f'{seconds[name]:.3f}', f'{ratio:.2f}'))
    print(format_table(rows, left=1))
    fastest = min(seconds, key=seconds.get)
    print(f'fastest here: {fastest}')
    return next((one for one in made if one.name == fastest), None)


if __name__ == '__main__':
    run_main(main)
