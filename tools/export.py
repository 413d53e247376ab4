"""Write a detector to a file for another runtime.

Clips go in as uint8, as the test pipeline makes them; scores and boxes of all queries
come out. The file is compared with the model before it gets its name, and its
description goes beside it (OUT.json).
"""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from stmixer_mm.apis import init_detector
from stmixer_mm.apis.config import config_files
from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.command_line import CfgOptions, run_main
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError
from stmixer_mm.files import check_no_input, check_writable_file
from stmixer_mm.models.data_preprocessor import single_clips
from stmixer_mm.projects.export.formats import FORMATS
from stmixer_mm.projects.export.parity import (
    NUM_COMPARED,
    list_outputs,
    move,
    write_near,
)
from stmixer_mm.projects.export.tensors import LEFT_OUT, TensorDetector
from stmixer_mm.projects.export.traced import Traced
from stmixer_mm.projects.profiling.clips import Shape, random_clip
from stmixer_mm.projects.profiling.meter import take_turns

import torch
from mmengine.config import Config
from torch import Tensor

TURNS = 3


def main(
    config: str,
    checkpoint: str,
    *,
    to: Literal[*FORMATS],
    out: Path,
    video: str | None = None,
    shape: Shape = None,
    dynamic: Sequence[Literal['batch', 'size']] = (),
    precision: Literal['fp32', 'bf16'] = 'fp32',
    label_map: str | None = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Args:
    config: Config file, or the name of one in configs/.
    checkpoint: Checkpoint file or URL.
    to: Format.
    out: File to write.
    video: Compare on clips of this video; they set height and width.
    shape: Frames, height and width of the clips; by default those of the test pipeline
        on the video, or else on frames of 4:5.
    dynamic: batch: any number of clips at once (default: one); size: any height and
        width (default: one).
    precision: Of most products.
    label_map: Label map (pbtxt) with the names of actions.
    """
    if precision not in FORMATS[to].precisions:
        raise UserError(
            f'--to {to} has no --precision {precision}; take another of the two.'
        )
    check_writable_file(out, purpose='--out', suffixes=(FORMATS[to].suffix,))
    inputs = [path for path in (config, checkpoint, video, label_map) if path]
    outputs = list_outputs(out)
    for path in outputs:
        check_writable_file(path, purpose='--out:', inputs=inputs)
    model = init_detector(
        config, checkpoint, label_map=label_map, cfg_options=cfg_options
    )
    check_no_input(outputs, config_files(model.cfg), purpose='--out:')
    detector = TensorDetector(model).eval()
    clips = find_clips(model.cfg, video, shape)
    batch = None if 'batch' in dynamic else 1
    traced = Traced(detector, clips.shape[-3:], batch, any_size='size' in dynamic)
    for name in LEFT_OUT:
        if getattr(model, name, None) is not None:
            print(f'{name} is left out: it depends on the persons found')
    with TemporaryDirectory(dir=out.parent, prefix='.') as folder:
        file, run = write_near(to, precision, traced, clips, Path(folder))
        clip = clips[:1]
        runs = dict(model=partial(detector, clip), file=partial(run, clip.numpy()))
        with torch.inference_mode():
            seconds = take_turns(runs, turns=TURNS, device=clip.device)
        speed = f'{seconds["file"]:.3f} s a clip, the model {seconds["model"]:.3f} s'
        print(f'{out}: {move(file, out) / 1e6:.1f} MB; {speed}')


def find_clips(cfg: Config, video: str | None, shape: Sequence[int] | None) -> Tensor:
    """Clips (B, 3, T, h, w), spread over the video, or of noise."""
    if video is None:
        shape = random_clip(cfg, shape=shape)['inputs'][0].shape[-3:]
        generator = torch.Generator().manual_seed(0)
        size = NUM_COMPARED, 3, *shape
        return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    loader, source = ClipLoader(cfg), open_video(video)
    interval_s = len(source) / source.fps / NUM_COMPARED
    loaded = loader.load(loader.cut(source, interval_s=interval_s), None)
    clips = torch.stack(
        single_clips(inputs['inputs'] for _, inputs in islice(loaded, NUM_COMPARED))
    )
    if shape and clips.shape[-3:] != tuple(shape):
        raise UserError(
            f'--shape is {tuple(shape)}, but the clips of the video are '
            f'{tuple(clips.shape[-3:])}; leave --shape out, or give another --video.'
        )
    return clips


if __name__ == '__main__':
    run_main(main)
