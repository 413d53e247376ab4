"""Files that are compared with their model before they get their names."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.files import write_atomically
from stmixer_mm.models.boxes import frame_scale
from stmixer_mm.projects.export.formats import FORMATS, Run, load, write
from stmixer_mm.projects.export.metadata import describe
from stmixer_mm.projects.export.tensors import Outputs, TensorDetector, join
from stmixer_mm.projects.export.traced import Traced

NUM_COMPARED = 4  # clips


class Parity(NamedTuple):
    """Largest differences from the model, over all queries."""

    scores: float
    pixels: float  # of the sides of boxes


# By precision.
LIMITS = dict(fp32=Parity(1e-3, 0.5), bf16=Parity(0.1, 8.0))


def write_near(
    to: str, precision: str, traced: Traced, clips: Tensor, folder: Path
) -> tuple[Path, Run]:
    """Write a file and compare it with its model.

    Args:
        to: Format.
        precision: One of its precisions.
        traced: The model.
        clips: (B, 3, T, h, w)
        folder: Where to write.

    Returns:
        The file, and what runs it.

    Raises:
        UserError: the model cannot be exported so, or the file is too far from it.
    """
    form, about = FORMATS[to], describe(traced, precision)
    file = folder / f'model{form.suffix}'
    write(traced, about, file, form)
    write_atomically(name_json(file), f'{about.to_text()}\n'.encode())
    run, _ = load(file)
    compared = [clips]
    if None in about.shape:
        frames, height, width = clips.shape[-3:]
        larger = frames, height * 4 // 3, width * 5 // 4
        compared.append(F.interpolate(clips, size=larger))
    gaps = [
        compare(traced.detector, run, batch, batch=about.batch) for batch in compared
    ]
    largest = Parity(*np.max(gaps, axis=0).tolist())  # NaN, if a gap is
    print(
        f'{to} {precision}: scores within {largest.scores:.1e}, boxes within '
        f"{largest.pixels:.1e} pixels of the model's"
    )
    if not is_within(largest, LIMITS[precision]):
        raise UserError(
            'Nothing is written: the file is too far from the model; take another '
            'format or precision, or another part of the model.'
        )
    return file, run


def is_within(parity: Parity, limits: Parity) -> bool:
    """True if no difference is larger; a NaN is within no limit."""
    return parity.scores <= limits.scores and parity.pixels <= limits.pixels


def compare(
    detector: TensorDetector, run: Run, clips: Tensor, *, batch: int | None = None
) -> Parity:
    """
    Args:
        detector: The detector that was exported.
        run: Runs the file.
        clips: (B, 3, T, h, w), uint8.
        batch: Clips that the file takes at once; None: all.
    """
    with torch.no_grad():
        ours = Outputs(*detector(clips))
    theirs = join(run(part.numpy()) for part in clips.split(batch or len(clips)))
    gaps = Outputs(*((a - b).abs() for a, b in zip(ours, theirs, strict=True)))
    scores = torch.stack([gaps.person_scores.max(), gaps.action_scores.max()])
    pixels = gaps.bboxes * frame_scale(clips.shape[-2:], gaps.bboxes)
    return Parity(scores.max().item(), pixels.max().item())


def move(file: Path, out: Path) -> int:
    """Move a file to ``out``, and those beside it, as of weights, beside that.

    Returns:
        Their bytes.
    """
    names = {file: out, name_json(file): name_json(out)}
    parts = sorted(file.parent.iterdir(), key=file.__eq__)  # the main one last
    size = sum(part.stat().st_size for part in parts)
    out.unlink(missing_ok=True)  # no new file beside an old one, if interrupted
    for part in parts:
        os.replace(part, names.get(part, out.with_suffix(part.suffix)))
    return size


def list_outputs(out: Path) -> list[Path]:
    """The files that :func:`move` may write: ``out``, and those beside it."""
    return [out, name_json(out), *[out.with_suffix('.bin')] * (out.suffix == '.xml')]


def name_json(file: Path) -> Path:
    """The description beside a file: model.onnx.json."""
    return file.with_name(f'{file.name}.json')
