"""Files that are compared with their model before they get their names."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import stmixer_mm
from stmixer_mm.datasets.pipelines import dataset_configs, find_sampler
from stmixer_mm.models.boxes import frame_scale
from stmixer_mm.models.heads.tubelet_head import finds_tubelets
from stmixer_mm.projects.export.formats import FORMATS, Metadata, Run, load, write
from stmixer_mm.projects.export.tensors import Outputs, TensorDetector, join
from stmixer_mm.projects.export.traced import Traced

NUM_COMPARED = 4  # clips, the last ones


class Parity(NamedTuple):
    """Largest differences from the model, over all queries."""

    scores: float
    pixels: float  # of the sides of boxes


# By precision.
LIMITS = dict(fp32=Parity(1e-3, 0.5), bf16=Parity(0.1, 8.0), int8=Parity(0.3, 32.0))


class Candidate(NamedTuple):
    name: str
    file: Path
    run: Run
    parity: Parity
    is_near: bool


def make_candidate(
    to: str, precision: str, traced: Traced, clips: Tensor, folder: Path
) -> Candidate:
    """Write a file and compare it with its model.

    Args:
        to: Format.
        precision: One of its precisions.
        traced: The model.
        clips: (B, 3, T, h, w), of which the last ones are compared. int8 measures its
            ranges on the others, or on these if there are no others.
        folder: Where to write.

    Raises:
        UserError: the model cannot be exported so.
    """
    form, about = FORMATS[to], describe(traced, precision)
    file = Path(folder, f'{to}-{precision}', f'model{form.suffix}')
    file.parent.mkdir()
    rest = clips[:-NUM_COMPARED] if len(clips) > NUM_COMPARED else clips
    write(traced, about, file, form, calibration=[clip[None].numpy() for clip in rest])
    run, _ = load(file)
    compared = [clips[-NUM_COMPARED:]]
    if None in about.shape:
        frames, height, width = clips.shape[-3:]
        larger = frames, height * 4 // 3, width * 5 // 4
        compared.append(F.interpolate(compared[0], size=larger))
    gaps = [compare(traced.detector, run, some, batch=about.batch) for some in compared]
    largest = Parity(*np.max(gaps, axis=0).tolist())  # NaN, if one is
    is_near = is_within(largest, LIMITS[precision])
    return Candidate(f'{to} {precision}', file, run, largest, is_near)


def is_within(parity: Parity, limits: Parity) -> bool:
    """Whether no difference is larger; a NaN is within no limit."""
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


def keep(candidate: Candidate, out: Path) -> int:
    """Move a candidate to ``out``; a file beside it, as of weights, goes beside that.

    Returns:
        Its bytes.
    """
    main = candidate.file
    parts = sorted(main.parent.iterdir(), key=main.__eq__)  # the main one last
    size = sum(part.stat().st_size for part in parts)
    if len(parts) > 1:  # no new file beside an old one, should this be interrupted
        out.unlink(missing_ok=True)
    for part in parts:
        os.replace(part, out if part == main else out.with_suffix(part.suffix))
    return size


def describe(traced: Traced, precision: str) -> Metadata:
    """Metadata of a model from ``init_detector``."""
    model = traced.detector.model
    transforms = next(dataset_configs(model.cfg, 'test'), {}).get('pipeline') or []
    sampler = find_sampler(transforms)
    preprocessor = model.data_preprocessor
    return Metadata(
        version=stmixer_mm.__version__,
        classes=None if model.classes is None else [*model.classes],
        shape=traced.shape,
        batch=traced.batch,
        frame_interval=transforms[sampler].get('frame_interval', 1),
        mean=preprocessor.mean.flatten().tolist(),
        std=preprocessor.std.flatten().tolist(),
        score_thr=model.head.score_thr,
        precision=precision,
        tubelets=finds_tubelets(model),
    )
