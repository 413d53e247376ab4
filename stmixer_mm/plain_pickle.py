"""Pickles of numbers, text, containers and arrays, read without running their code.

A pickle is a program. This one is run by an unpickler that knows numbers, text and
containers; arrays become records of the bytes they hold, which are then read as
numbers. Nothing else can be called, numpy included.
"""

import io
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numpy as np

from stmixer_mm.errors import UserError
from stmixer_mm.files import check_file, kind_of

_Content = TypeVar('_Content')


class ContentError(UserError):
    """A sentence that tells what is wrong with what a pickle holds."""


class RefusedError(Exception):
    """What a pickle asks for that is none of these."""


class _Dtype:
    """Stands in for ``numpy.dtype``: keeps the arguments and the byte order."""

    def __init__(self, code: str, *flags: Any) -> None:
        del flags
        # Numbers and text of fixed size; no structures, no objects.
        if not isinstance(code, str) or code.lstrip('<>|=')[:1] not in 'biufSU':
            raise RefusedError(
                f'it holds an array of type {code!r}, not of numbers or text'
            )
        self.code = code.lstrip('<>|=')
        self.order = '='

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        self.order = order if order in ('<', '>') else '='

    def of(self, data: Any, count: int = -1) -> np.ndarray:
        data = data.encode('latin1') if isinstance(data, str) else data
        if not isinstance(data, bytes | bytearray):
            raise RefusedError('it holds an array of objects, not of numbers')
        return np.frombuffer(data, np.dtype(self.order + self.code), count)


class _Array:
    """Stands in for an array that is being restored."""

    def __init__(self, *arguments: Any) -> None:
        del arguments
        self._state: tuple | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self._state = (shape, dtype, fortran, data)

    def value(self) -> np.ndarray:
        shape, dtype, fortran, data = self._state
        flat = dtype.of(data)
        return flat.reshape(shape, order='F' if fortran else 'C')


class _Buffer(_Array):
    """Stands in for an array of a protocol-5 pickle."""

    def __init__(self, data: Any, dtype: _Dtype, shape: tuple, order: str) -> None:
        self._state = (shape, dtype, order == 'F', data)


class _Scalar:
    """Stands in for a numpy number."""

    def __init__(self, dtype: _Dtype, data: Any) -> None:
        self._number = dtype.of(data, 1)[0].item()

    def value(self) -> Any:
        return self._number

    # Without it a pickle could set attributes of the class.
    def __setstate__(self, state: Any) -> None:
        raise RefusedError('it changes a number after making it')

    # A number may be the key of a dict.
    def __hash__(self) -> int:
        return hash(self._number)

    def __eq__(self, other: object) -> bool:
        return self._number == (other._number if isinstance(other, _Scalar) else other)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as Python 3 writes them in protocol 2."""
    if encoding != 'latin1':
        raise RefusedError(f'it encodes text as {encoding!r}, which no array needs')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    """Bytes of an empty array as Python 3 writes them in protocol 2."""
    return b''


def is_array(value: Any) -> bool:
    """Whether what was unpickled is an array or stands in for one."""
    return isinstance(value, _Array | np.ndarray)


def as_array(value: Any, place: str) -> np.ndarray:
    """The numbers of an array, or ``ContentError`` that names ``place``."""
    # What a hostile pickle put together can fail in any way.
    try:
        return value.value() if isinstance(value, _Array) else np.asarray(value)
    except Exception as error:
        raise ContentError(f'{place} is no array of numbers ({error}).') from error


def to_plain(value: Any) -> Any:
    """Containers of numbers, text and arrays, nothing that stands in."""
    return _to_plain(value, {})


def _to_plain(value: Any, done: dict[int, Any]) -> Any:
    """``done`` has what was made of containers, which a pickle may hold often."""
    if isinstance(value, _Array | _Scalar):
        return value.value()
    if not isinstance(value, Mapping | list | tuple):
        return value
    if id(value) not in done:
        if isinstance(value, Mapping):
            plain = {
                _to_plain(key, done): _to_plain(item, done)
                for key, item in value.items()
            }
        else:
            plain = type(value)(_to_plain(item, done) for item in value)
        done[id(value)] = plain
    return done[id(value)]


# What a name in a pickle stands for.
_KNOWN = {
    ('_codecs', 'encode'): _encode,
    ('collections', 'OrderedDict'): OrderedDict,
    ('collections', 'defaultdict'): defaultdict,
    ('numpy', 'dtype'): _Dtype,
    ('numpy', 'ndarray'): _Array,
    **{
        (f'numpy.{core}.{module}', name): stand_in
        for core in ('core', '_core')
        for module, name, stand_in in (
            ('multiarray', '_reconstruct', _Array),
            ('multiarray', 'scalar', _Scalar),
            ('numeric', '_frombuffer', _Buffer),
        )
    },
    **{
        (module, kind.__name__): kind
        for module in ('builtins', '__builtin__')
        for kind in (list, dict, int, float)
    },
    **{(module, 'bytes'): _no_bytes for module in ('builtins', '__builtin__')},
}


class PlainUnpickler(pickle.Unpickler):
    """Knows the names that pickled containers and arrays of numbers ask for."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            known = _KNOWN[module, name]
            # A pickle may set attributes of what it gets.
            return partial(known) if isinstance(known, FunctionType) else known
        except KeyError:
            raise RefusedError(
                f'it asks for {module}.{name}, which no plain data needs'
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError(
            'it refers to something outside of itself, as parts of a file of '
            'torch.save do'
        )


def read_plain_pickle(
    file: str | Path,
    convert: Callable[[Any], _Content] = to_plain,
    *,
    unpickler: type[PlainUnpickler] = PlainUnpickler,
    kind: str = 'a pickle',
    remedy: str = 'write or fetch it again',
) -> _Content:
    """Containers of numbers, text and arrays, of Python 2 or 3; runs no code of theirs.

    Args:
        file: The file.
        convert: Makes the result of what may stand in for arrays and numbers.
        unpickler: Knows what else the file may ask for.
        kind: What the file should be, for messages.
        remedy: What to do if it is damaged.

    Raises:
        OSError: the file is missing, or may not be read.
        ValueError: it is damaged, or asks for anything else.
    """
    check_file(file)
    data = Path(file).read_bytes()
    packed = kind_of(data)
    if packed not in (None, 'a pickle'):
        raise UserError(f'{file} is {packed}, not {kind}; unpack it, or {remedy}.')
    try:
        return convert(unpickler(io.BytesIO(data), encoding='latin1').load())
    except RefusedError as error:
        raise UserError(
            f'{file}: {error}; do not use it unless you trust its origin, and then save '
            'it again with plain containers and arrays.'
        ) from error
    except ContentError:
        raise
    # A broken pickle can make the unpickler, and what reads its work, fail in any way.
    except Exception as error:
        reason = str(error).split('\n')[0].rstrip('.') or type(error).__name__
        raise UserError(
            f'{file} cannot be read as {kind} ({reason}); {remedy}.'
        ) from error
