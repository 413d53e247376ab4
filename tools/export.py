"""Write a detector to a file for another runtime.

Clips go in as uint8, as the test pipeline makes them; scores and boxes of all queries
come out. The file is compared with the model before it gets its name, and its
description goes beside it (OUT.json).
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from stmixer_mm.apis import init_detector
from stmixer_mm.apis.config import config_files
from stmixer_mm.command_line import CfgOptions, run_main
from stmixer_mm.engine.speed import speed_up
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_no_input, check_writable_file
from stmixer_mm.projects.export.candidates import (
    NUM_COMPARED,
    Candidate,
    keep,
    list_outputs,
    make_candidate,
)
from stmixer_mm.projects.export.formats import FORMATS, list_ways
from stmixer_mm.projects.export.tensors import LEFT_OUT, TensorDetector
from stmixer_mm.projects.export.traced import Traced
from stmixer_mm.projects.profiling.clips import (
    ClipPipeline,
    Shape,
    config_clips,
    random_clip,
    stack_clips,
    video_clips,
)
from stmixer_mm.projects.profiling.meter import take_turns
from stmixer_mm.projects.streaming.path import cut_path

import torch
from mmengine.config import Config
from torch import Tensor, nn

NUM_CALIBRATION = 32  # clips
TURNS = 5


def main(
    config: str,
    checkpoint: str,
    *,
    to: Literal['onnx', 'openvino', 'torch', 'inductor', 'stream', 'auto'],
    out: Path,
    video: str | None = None,
    shape: Shape = None,
    dynamic: Sequence[Literal['batch', 'size']] = (),
    precision: Literal['fp32', 'bf16', 'int8', 'auto'] = 'fp32',
    label_map: str | None = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Args:
    config: Config file, or the name of one in configs/.
    checkpoint: Checkpoint file or URL.
    to: Format; auto: the fastest on this machine of all that are installed.
    out: File to write; with --to auto its suffix is added.
    video: Compare on clips of this video; they set height and width.
    shape: Frames, height and width of the clips; by default those of the test pipeline
        on the video, or else on frames of 4:5.
    dynamic: batch: any number of clips at once (default: one); size: any height and
        width (default: one).
    precision: Of most products; int8 measures ranges on clips of the video, or else of
        the training set; auto: the fastest on this machine (int8 only with --video).
    label_map: Label map (pbtxt) with the names of actions.
    """
    ways, is_auto = list_ways(to, precision), 'auto' in (to, precision)
    if precision == 'auto' and not video:
        ways = [way for way in ways if 'int8' not in way]
    files = [out]
    if to == 'auto':
        files = [out.with_name(out.name + FORMATS[name].suffix) for name, _ in ways]
    else:
        check_writable_file(out, purpose='--out', suffixes=(FORMATS[to].suffix,))
    outputs = [path for file in files for path in list_outputs(file)]
    inputs = [path for path in (config, checkpoint, video, label_map) if path]
    for path in outputs:
        check_writable_file(path, purpose='--out:', inputs=inputs)
    model = init_detector(
        config, checkpoint, label_map=label_map, cfg_options=cfg_options
    )
    check_no_input(outputs, config_files(model.cfg), purpose='--out:')
    detector = TensorDetector(model).eval()
    in_int8 = any('int8' in way for way in ways)
    clips = find_clips(model.cfg, video, shape, in_int8=in_int8)
    batch = None if 'batch' in dynamic else 1
    options = dict(any_size='size' in dynamic, cut=cut_path)
    traced = Traced(detector, clips.shape[-3:], batch, **options)
    with TemporaryDirectory(dir=out.parent, prefix='.') as folder:
        made = make_all(ways, traced, clips, Path(folder), skip=is_auto)
        chosen = made[0]
        if is_auto:
            rivals = {'the checkpoint': detector}
            if precision == 'auto':
                rivals['the checkpoint with --fast'] = speed_up(deepcopy(detector))
            chosen = find_fastest(made, rivals, clips[:1])
        if chosen is None:
            print('Keep the checkpoint: nothing is written.')
            return
        if to == 'auto':
            out = out.with_name(out.name + chosen.file.suffix)
        print(f'{out}: {keep(chosen, out) / 1e6:.1f} MB')


def find_clips(
    cfg: Config, video: str | None, shape: Sequence[int] | None, *, in_int8: bool
) -> Tensor:
    """Clips (B, 3, T, h, w) of the video, for int8 of the training set, or of noise."""
    if not (video or in_int8):
        shape = random_clip(cfg, shape=shape)['inputs'][0].shape[-3:]
        generator = torch.Generator().manual_seed(0)
        size = NUM_COMPARED, 3, *shape
        return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    count = NUM_COMPARED + NUM_CALIBRATION * in_int8
    infos = video_clips(video, count) if video else config_clips(cfg, 'train', count)
    clips = stack_clips(infos, ClipPipeline(cfg, 'test', of_videos=bool(video)))
    if shape and clips.shape[-3:] != shape:
        raise UserError(
            f'--shape is {tuple(shape)}, but the clips of the '
            f'{"video" if video else "training set"} are {tuple(clips.shape[-3:])}; '
            'leave --shape out, or give another --video.'
        )
    return clips


def make_all(
    ways: Sequence[tuple[str, str]],
    traced: Traced,
    clips: Tensor,
    folder: Path,
    *,
    skip: bool,
) -> list[Candidate]:
    """Files that are near enough to the model, of all formats and precisions.

    With ``skip``, those in which it cannot be exported are left out.
    """
    for name in LEFT_OUT:
        if getattr(traced.detector.model, name, None) is not None:
            print(f'{name} is left out: it depends on the persons found')
    near = []
    for way in ways:
        try:
            made = make_candidate(*way, traced, clips, folder)
        except UserError as error:
            if not skip:
                raise
            print(f'{" ".join(way)} is left out: {error}')
            continue
        near += [made] * made.is_near
        scores, pixels = made.parity
        print(
            f'{made.name}: scores within {scores:.1e}, boxes within {pixels:.1e} pixels '
            f"of the model's{'' if made.is_near else ', too far'}"
        )
    if not near:
        raise UserError(
            'Nothing is written: no file is near enough to the model; take another '
            'format or precision, or another part of the model.'
        )
    return near


def find_fastest(
    made: Sequence[Candidate], rivals: Mapping[str, nn.Module], clip: Tensor
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
