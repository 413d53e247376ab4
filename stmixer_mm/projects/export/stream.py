"""A detector as several ONNX models, of which a stream runs most for new frames only.

Shapes: N frames or B clips, of T frames each; C channels, h x w cells.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.projects.export.graphs import check_bounds, read_onnx, without_paths
from stmixer_mm.projects.export.metadata import FOREIGN, KEY, Metadata
from stmixer_mm.projects.export.tensors import Outputs
from stmixer_mm.projects.export.traced import Traced, import_package

Levels = list[Tensor]
ABOUT = f'{KEY}.json'
BEFORE = 'before'  # name of an input: the last level of the frames before


class _Piece(nn.Module):
    """A function of levels, with the detector that it runs parts of."""

    def __init__(self, run: Callable, num_levels: int, detector: nn.Module) -> None:
        super().__init__()
        self.run, self.num_levels, self.detector = run, num_levels, detector

    def forward(self, tensors: Levels) -> tuple[Tensor, ...]:
        """Tensors are the levels, then the last of the frames before, if it needs it."""
        count = self.num_levels
        return tuple(self.run(tensors[:count], *tensors[count:]))


def write_stream(traced: Traced, about: Metadata, file: Path, _: object) -> None:
    """A zip of the description, a model for each step, and one of the decoder."""
    if None in traced.shape:
        raise ValueError('its frames have one size')
    detector, (num_frames, *size) = traced.copy, traced.shape
    ((first, _), *steps), parts = traced.cut(detector.model.path)

    def begin(frames: Levels) -> Levels:
        return first([detector.prepare(*frames)])

    def decode(feats: Levels) -> tuple[Tensor, ...]:
        for part in parts:
            feats = part(feats)
        return detector.decode(as_levels(feats), traced.shape)

    batch, frames = (Dim(name, min=1, max=4096) for name in ('batch', 'frames'))
    levels = [torch.zeros(2, 3, 3, *size, dtype=torch.uint8)]
    with ZipFile(file, 'w') as archive:
        archive.writestr(ABOUT, about.to_text())

        def add(run: Callable, looks_back: bool, axes: dict, outputs: object = None):
            piece = _Piece(run, len(levels), detector).eval()
            names = [*map('level{}'.format, range(len(levels))), *[BEFORE] * looks_back]
            # A tensor of its own, or tracing takes the two for one.
            inputs = [*levels, *[levels[-1].clone()] * looks_back]
            model = traced.to_onnx(piece, inputs, [axes] * len(names), names, outputs)
            data = without_paths(model).SerializeToString()
            archive.writestr(f'{len(archive.namelist())}.onnx', data)
            return [*piece(inputs)]

        for run, looks_back in [(begin, False), *steps]:
            levels = add(run, looks_back, {0: batch, 2: frames})
        levels = [
            one.new_zeros(2, one.size(1), num_frames, *one.shape[3:]) for one in levels
        ]
        add(decode, False, {0: batch}, Outputs._fields)


def load_stream(file: Path) -> tuple['StreamFile', Metadata]:
    with ZipFile(file) as archive:
        if ABOUT not in archive.namelist():
            raise ValueError(FOREIGN)
        about = Metadata.from_text(archive.read(ABOUT).decode())
        names = [name for name in archive.namelist() if name != ABOUT]
        if any(one.compress_size != one.file_size for one in archive.infolist()):
            raise ValueError(f'{FOREIGN}: it is compressed')
        models = [archive.read(name) for name in names]
    load = import_package('onnx').load_model_from_string
    for data in models:
        check_bounds(read_onnx(load(data)), about)
    return StreamFile([start_session(data, spins=False) for data in models]), about


def start_session(model: str | bytes, *, spins: bool = True) -> object:
    """An ``InferenceSession`` of onnxruntime, from a file or its contents.

    Threads of one that ``spins`` take time from other sessions when it has run.
    """
    runtime = import_package('onnxruntime')
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, too
    options.add_session_config_entry('session.intra_op.allow_spinning', f'{+spins}')
    return runtime.InferenceSession(model, options, providers=['CPUExecutionProvider'])


class StreamFile:
    """Runs the models of a file.

    Args:
        sessions: Of the steps, then of the decoder.
    """

    def __init__(self, sessions: list) -> None:
        *steps, self._decoder = sessions
        self._steps = [(partial(_run, one), _looks_back(one)) for one in steps]

    def frame_steps(self) -> list[tuple[Callable[..., Levels], bool]]:
        """What a stream takes for each frame."""
        return self._steps

    def decode(self, feats: Sequence[Tensor]) -> list[np.ndarray]:
        """:class:`Outputs`, from the last levels of clips (B, C, T, h, w)."""
        return [one.numpy() for one in _run(self._decoder, feats)]

    def __call__(self, clips: np.ndarray) -> list[np.ndarray]:
        """The same from clips (B, 3, T, h, w), uint8."""
        levels = [torch.from_numpy(clips)]
        for run, looks_back in self._steps:
            before = F.pad(levels[-1], (0, 0, 0, 0, 1, -1)) if looks_back else None
            levels = run(levels, before)
        return self.decode(levels)


def _looks_back(session: object) -> bool:
    names = {one.name for one in session.get_inputs()}
    if f'{BEFORE}0' in names:
        raise ValueError('an earlier version wrote it')
    return BEFORE in names


def _run(session: object, levels: Levels, before: Tensor | None = None) -> Levels:
    tensors = levels if before is None else [*levels, before]
    names = [one.name for one in session.get_inputs()]
    arrays = [one.cpu().numpy() for one in tensors]
    found = session.run(None, dict(zip(names, arrays, strict=True)))
    return [torch.from_numpy(one) for one in found]
