"""Files that are compared with their model before they get their names."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

import stmixer_mm
from stmixer_mm.datasets.pipelines import dataset_configs, find_sampler
from stmixer_mm.errors import UserError
from stmixer_mm.models.detectors.base import finds_tubelets
from stmixer_mm.projects.export.formats import (
    FORMATS,
    Format,
    Metadata,
    Run,
    files_of,
    format_of,
    load,
    write,
)
from stmixer_mm.projects.export.parity import LIMITS, Parity, compare
from stmixer_mm.projects.export.tensors import TensorDetector
from stmixer_mm.projects.export.traced import Traced

NUM_REAL = 4  # clips to compare, the last ones


class Candidate(NamedTuple):
    name: str
    form: Format
    file: Path
    run: Run
    parities: dict[str, Parity]
    is_met: bool


def make_candidates(
    ways: Sequence[tuple[str, str]],
    detector: TensorDetector,
    traced: Traced,
    metadata: Metadata,
    folder: Path,
    *,
    clips: Mapping[str, Tensor],
    skip: bool,
) -> list[Candidate]:
    """Write files and compare them with their model.

    Args:
        ways: Formats and precisions.
        detector: The model.
        traced: Its programs.
        metadata: Of all files but for the precision.
        folder: Where to write them.
        clips: (B, 3, T, h, w) by kind. int8 measures its ranges on those of the kind
            'real' but the last, and need not be near the model on others.
        skip: Whether to leave out what cannot be exported.
    """
    made = []
    for to, precision in ways:
        form, about = FORMATS[to], replace(metadata, precision=precision)
        name, file = f'{to} {precision}', folder / f'{to}-{precision}{form.suffix}'
        try:
            write(traced, about, file, form, calibration=_calibration(clips))
        except UserError as error:
            if not skip:
                raise
            print(f'{name} is left out: {error}')
            continue
        run, _ = load(file)
        parities = {
            kind: compare(detector, run, some[-NUM_REAL:], batch=about.batch)
            for kind, some in clips.items()
        }
        is_met = all(
            parity.is_met(LIMITS[precision])
            for kind, parity in parities.items()
            if precision != 'int8' or kind == 'real'
        )
        made.append(Candidate(name, form, file, run, parities, is_met))
    return made


def _calibration(clips: Mapping[str, Tensor]) -> list[np.ndarray]:
    real = clips.get('real', ())
    count = len(real) - NUM_REAL
    return [clip[None].numpy() for clip in real[: count if count > 0 else None]]


def keep(candidate: Candidate, out: Path) -> list[Path]:
    """Move a file to ``out``, with the suffix of its format; returns all files there."""
    form = candidate.form
    out = name_of(out, form)
    if form.beside:  # no new file beside an old one, should this be interrupted
        out.unlink(missing_ok=True)
    files = files_of(out, form)
    for part, file in zip(files_of(candidate.file, form), files, strict=True):
        os.replace(part, file)
    return files


def name_of(out: Path, form: Format) -> Path:
    """``out`` with the suffix of a format."""
    if format_of(out) is None:
        return out.with_name(out.name + form.suffix)
    return out if out.suffix.lower() == form.suffix else out.with_suffix(form.suffix)


def describe(
    model: nn.Module, shape: Sequence[int | None], batch: int | None
) -> Metadata:
    """Metadata of a model from ``init_detector``."""
    transforms = next(dataset_configs(model.cfg, 'test'), {}).get('pipeline') or []
    sampler = find_sampler(transforms)
    preprocessor = model.data_preprocessor
    return Metadata(
        version=stmixer_mm.__version__,
        classes=None if model.classes is None else [*model.classes],
        shape=[*shape],
        batch=batch,
        frame_interval=transforms[sampler].get('frame_interval', 1),
        mean=preprocessor.mean.flatten().tolist(),
        std=preprocessor.std.flatten().tolist(),
        score_thr=model.head.score_thr,
        tubelets=finds_tubelets(model),
    )
