"""Pickles of numbers, text, containers and arrays, read without running their code.

A pickle is a program. This one can call what is in ``_KNOWN`` and nothing else; arrays
and their types take no state but the bytes of numbers or text.
"""

import pickle
from collections import OrderedDict, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.errors import blame
from stmixer_mm.files import check_file


class _Dtype:
    """A type of numbers or text; numpy's own would take any state from a pickle."""

    def __init__(self, code: str, *_: Any) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in 'biufSU':
            raise pickle.UnpicklingError(
                f'it holds an array of {code!r}, not of numbers or text'
            )

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that a pickle fills with bytes."""

    def __new__(cls, *_: Any) -> '_Array':
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        super().__setstate__((1, shape, dtype.dtype, is_fortran, data))


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _scalar(dtype: _Dtype, data: bytes | str) -> np.generic:
    data = data.encode('latin1') if isinstance(data, str) else data
    return np.frombuffer(data, dtype.dtype, 1)[0]


# By their names in Python 3 and numpy 1.
_KNOWN = {
    # How Python 3 writes bytes in protocol 2, and none of them.
    '_codecs.encode': str.encode,
    'builtins.bytes': lambda: b'',
    **{f'builtins.{known.__name__}': known for known in (list, dict, int, float)},
    'collections.OrderedDict': OrderedDict,
    'collections.defaultdict': defaultdict,
    'numpy.core.multiarray._reconstruct': _Array,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy.core.numeric._frombuffer': _from_buffer,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
}


class PlainUnpickler(pickle.Unpickler):
    """Knows the names that pickled containers and arrays of numbers ask for."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace('__builtin__', 'builtins').replace('._core', '.core')
        if f'{module}.{name}' not in _KNOWN:
            raise pickle.UnpicklingError(
                f'it asks for {module}.{name}, which no plain data needs'
            )
        known = _KNOWN[f'{module}.{name}']
        # A pickle may set attributes of a function that it gets.
        return known if isinstance(known, type) else partial(known)


def read_plain_pickle(
    file: str | Path,
    *,
    unpickler: type[PlainUnpickler] = PlainUnpickler,
    kind: str = 'a pickle',
    remedy: str = 'write or fetch it again',
) -> Any:
    """Containers of numbers, text and arrays, of Python 2 or 3; runs no code of theirs.

    Args:
        file: The file.
        unpickler: Knows what else the file may ask for.
        kind: What the file should be, for messages.
        remedy: What to do if it is something else.

    Raises:
        UserError: the file is missing or damaged, or asks for anything else.
    """
    check_file(file)
    with (
        blame(f'{file} cannot be read as {kind}', remedy),
        open(file, 'rb') as opened,
    ):
        return unpickler(opened, encoding='latin1').load()
