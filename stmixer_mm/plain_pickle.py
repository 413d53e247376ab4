"""Pickles of numbers, text, containers and arrays, read without running their code.

A pickle is a program. This one can call what is in ``_KNOWN`` and nothing else; arrays
and their types take no state but the bytes of numbers or text.
"""

import io
import pickle
from collections import OrderedDict, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_file, kind_of


class RefusedError(Exception):
    """What a pickle asks for that is not plain."""


class _Dtype:
    """A type of numbers or text; numpy's own would take any state from a pickle."""

    def __init__(self, code: str, *flags: Any) -> None:
        del flags
        self.dtype = np.dtype(code)
        if self.dtype.kind not in 'biufSU':
            raise RefusedError(f'it holds an array of {code!r}, not of numbers or text')

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class Array(np.ndarray):
    """An array that a pickle fills with bytes."""

    def __new__(cls, *arguments: Any) -> 'Array':
        del arguments
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        super().__setstate__((1, shape, dtype.dtype, is_fortran, data))


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _scalar(dtype: _Dtype, data: bytes | str) -> np.generic:
    data = data.encode('latin1') if isinstance(data, str) else data
    return np.frombuffer(data, dtype.dtype, 1)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as Python 3 writes them in protocol 2."""
    return str.encode(text, encoding)


def _no_bytes() -> bytes:
    """Bytes of an empty array as Python 3 writes them in protocol 2."""
    return b''


_KNOWN = {
    ('_codecs', 'encode'): _encode,
    ('collections', 'OrderedDict'): OrderedDict,
    ('collections', 'defaultdict'): defaultdict,
    ('numpy', 'dtype'): _Dtype,
    ('numpy', 'ndarray'): Array,
    **{
        (f'numpy.{core}.{module}', name): stand_in
        for core in ('core', '_core')
        for module, name, stand_in in (
            ('multiarray', '_reconstruct', Array),
            ('multiarray', 'scalar', _scalar),
            ('numeric', '_frombuffer', _from_buffer),
        )
    },
    **{
        (module, name): known
        for module in ('builtins', '__builtin__')
        for name, known in (
            *((kind.__name__, kind) for kind in (list, dict, int, float)),
            ('bytes', _no_bytes),
        )
    },
}


class PlainUnpickler(pickle.Unpickler):
    """Knows the names that pickled containers and arrays of numbers ask for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise RefusedError(
                f'it asks for {module}.{name}, which no plain data needs'
            )
        known = _KNOWN[module, name]
        # A pickle may set attributes of a function that it gets.
        return known if isinstance(known, type) else partial(known)

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError(
            'it refers to something outside of itself, as parts of a file of '
            'torch.save do'
        )


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
        remedy: What to do if it is damaged.

    Raises:
        UserError: the file is missing or damaged, or asks for anything else.
    """
    check_file(file)
    data = Path(file).read_bytes()
    packed = kind_of(data)
    if packed not in (None, 'a pickle'):
        raise UserError(f'{file} is {packed}, not {kind}; unpack it, or {remedy}.')
    with blame(f'{file} cannot be read as {kind}', remedy):
        try:
            return unpickler(io.BytesIO(data), encoding='latin1').load()
        except RefusedError as error:
            raise UserError(
                f'{file}: {error}; do not use it unless you trust its origin, and then '
                'save it again with plain containers and arrays.'
            ) from error
