"""Banks: the persons that a detector found in a video, as vectors in a file.

Shapes: K keyframes of a video, P persons in all of them, C channels of a query.
"""

import json
import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from stmixer_mm.datasets.frames import without_suffix
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_file, write_atomically

SUFFIX = '.safetensors'
SAME_S = 0.01  # times that differ less are of one keyframe
_ABOUT, _VERSION = 'stmixer_mm', 1
BANK_HEAD = (
    f'{{"__metadata__":{{"{_ABOUT}":'  # of a file, after the length of its header
)
_MAKERS = ('backbone', 'neck', 'initial_boxes', 'decoder')  # of vectors


class Bank(NamedTuple):
    """A bank file; the vectors stay in it until they are asked for."""

    path: str
    about: Mapping  # key, classes, and which version of the video it is of
    times: np.ndarray  # (K,) float64, seconds, rising
    ends: np.ndarray  # (K + 1,) int: keyframe k has the persons ends[k]:ends[k + 1]
    bboxes: Tensor  # (P, 4): xyxy in [0, 1]
    person_scores: Tensor  # (P,)

    def keyframe(self, time_s: float) -> int | None:
        """The number of the keyframe at a time, if there is one."""
        nearest = int(np.abs(self.times - time_s).argmin()) if len(self.times) else 0
        is_there = len(self.times) and abs(self.times[nearest] - time_s) < SAME_S
        return nearest if is_there else None

    def persons(self, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (n, 2 C), boxes (n, 4) and times (n,) from one keyframe to another.

        The last one is not among them.
        """
        rows = slice(self.ends[first], self.ends[last])
        counts = np.diff(self.ends[first : last + 1])
        with safe_open(self.path, 'pt') as file:
            vectors = file.get_slice('vectors')[rows]
        if not vectors.isfinite().all():
            raise UserError(
                f'{self.path} has vectors that are not finite; write it anew with '
                'stmixer extract.'
            )
        times = torch.from_numpy(self.times[first:last].repeat(counts))
        return vectors, self.bboxes[rows], times


def write_bank(
    path: Path,
    keyframes: Sequence[tuple[float, Tensor, Tensor, Tensor]],
    about: Mapping,
    width: int,
) -> None:
    """Write the bank of a video in one step.

    Args:
        path: Where to.
        keyframes: Seconds, vectors (n, 2 C), boxes (n, 4) and person scores (n,) of
            each.
        about: See :class:`Bank`.
        width: 2 C.
    """
    times, *fields = zip(*keyframes, strict=True) if keyframes else ((), (), (), ())
    empty = torch.zeros(0, width), torch.zeros(0, 4), torch.zeros(0)
    vectors, bboxes, person_scores = (
        torch.cat([nothing, *(tensor.cpu().float() for tensor in field)])
        for nothing, field in zip(empty, fields, strict=True)
    )
    tensors = dict(
        times=torch.tensor(times, dtype=torch.float64),
        counts=torch.tensor([*map(len, fields[0])], dtype=torch.int32),
        vectors=vectors.half(),
        bboxes=bboxes,
        person_scores=person_scores,
    )
    text = json.dumps({**about, 'version': _VERSION})
    content = safetensors.torch.save(tensors, {_ABOUT: text})
    write_atomically(path, content)


def read_bank(
    path: str | Path, *, remedy: str = 'write it anew with stmixer extract'
) -> Bank:
    """Open a bank.

    Raises:
        UserError: it is missing, cut short, or no bank.
    """
    check_file(path, subject=f'Bank {path}', remedy='write it with stmixer extract')
    with (
        blame(f'{path} cannot be used as a bank', remedy),
        safe_open(str(path), 'pt') as file,
    ):
        about = json.loads((file.metadata() or {}).get(_ABOUT, '{}'))
        if about.get('version') != _VERSION:
            raise ValueError('stmixer extract of this version did not write it')
        names = [about['key'], *(about['classes'] or ())]
        if not all(isinstance(name, str) for name in names):
            raise ValueError('it does not name its detector and classes')
        bank = Bank(
            str(path),
            about,
            file.get_tensor('times').numpy(),
            np.append(0, file.get_tensor('counts').numpy()).cumsum(),
            file.get_tensor('bboxes'),
            file.get_tensor('person_scores'),
        )
        vectors = file.get_slice('vectors')
        _check_arrays(bank, vectors.get_dtype(), vectors.get_shape())
        return bank


def _check_arrays(bank: Bank, dtype: str, shape: Sequence[int]) -> None:
    """Raise ``ValueError`` for arrays other than :func:`write_bank` writes.

    The last arguments are those of the vectors, which stay in the file.
    """
    (num_persons, width), arrays = shape, (bank.bboxes, bank.person_scores)
    shapes = [tuple(array.shape) for array in arrays]
    if dtype != 'F16' or width % 2 or shapes != [(num_persons, 4), (num_persons,)]:
        raise ValueError('its arrays do not fit together')
    times, counts = bank.times, np.diff(bank.ends)
    if (
        times.shape != counts.shape
        or (counts < 0).any()
        or bank.ends[-1] != num_persons
    ):
        raise ValueError('its counts are not those of its persons')
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise ValueError('its times do not rise')
    if not all(
        array.dtype == torch.float32 and array.isfinite().all() for array in arrays
    ):
        raise ValueError('boxes or scores are no finite numbers')


def check_window(window_s: float) -> float:
    """Seconds that a memory reaches; raises ``UserError`` unless they are some."""
    if not 0 < window_s < math.inf:
        raise UserError(
            f'window_s={window_s} is no number of seconds; set one above 0.'
        )
    return window_s


def bank_name(video: str) -> str:
    """The file name of a video's bank: its own name with another suffix."""
    return without_suffix(Path(video).name) + SUFFIX


def find_bank(folder: str, video: str) -> Bank:
    """The bank of a video in a folder."""
    return read_bank(Path(folder, bank_name(video)))


def detector_key(detector: nn.Module) -> str:
    """Digest of the weights that decide a detector's vectors."""
    digest = sha256()
    for name, value in sorted(detector.state_dict().items()):
        if name.partition('.')[0] in _MAKERS:
            digest.update(f'{name} {tuple(value.shape)} '.encode())
            digest.update(value.cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
