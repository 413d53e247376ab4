"""Pickles of numbers, text, containers, arrays and tensors, read without their code.

A pickle is a program. This one can call what is in ``_KNOWN`` and nothing else.
"""

import io
import math
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch._utils import _rebuild_tensor_v2

from stmixer_mm.errors import blame
from stmixer_mm.files import check_file

_KINDS = 'biufSU'  # of arrays: numbers and text
_MAX_GROWTH = 8  # beside a million: parts of what was read, counted at each reference


def _dtype(code: str, *_: Any) -> np.dtype:
    if np.dtype(code).kind not in _KINDS:
        raise pickle.UnpicklingError(
            f'it has an array of {code!r}, not of numbers or text'
        )
    return np.dtype(code, False, True)  # a copy, which is changed later


def _storage(data: bytes) -> torch.TypedStorage:
    if not data.startswith(b'PK'):  # a zip archive, which may grow
        stored = torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)
        if isinstance(stored, torch.TypedStorage):
            return stored
    raise pickle.UnpicklingError('it has a tensor of another form')


def _array(storage: torch.TypedStorage, offset: int, size: tuple, *rest: Any) -> Any:
    """A tensor as an array, which torch keeps within its storage."""
    tensor = _rebuild_tensor_v2(storage, offset, size, *rest).detach()
    if tensor.nbytes > tensor.untyped_storage().nbytes():  # it repeats elements
        raise pickle.UnpicklingError('it has a tensor that is larger than its storage')
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


# By their names in Python 3 and numpy 1.
_KNOWN = {
    # How Python 3 writes bytes in protocol 2, and no bytes.
    '_codecs.encode': str.encode,
    'builtins.bytes': lambda: b'',
    **{f'builtins.{known.__name__}': known for known in (list, dict, int, float)},
    'collections.OrderedDict': OrderedDict,
    'collections.defaultdict': defaultdict,
    # An empty array, which is filled with bytes later.
    'numpy.core.multiarray._reconstruct': lambda *_: np.ndarray(0),
    'numpy.core.multiarray.scalar': np.float32().__reduce__()[0],
    'numpy.core.numeric._frombuffer': np.zeros(1).__reduce_ex__(5)[0],
    'numpy.dtype': _dtype,
    'numpy.ndarray': lambda *_: np.ndarray(0),
    # Tensors, which mmengine's DumpResults leaves as they are.
    'torch._utils._rebuild_tensor_v2': _array,
    'torch.storage._load_from_bytes': _storage,
}


def _weight(value: Any, known: dict[int, float]) -> float:
    """Parts of a value; what is referred to twice counts twice.

    Args:
        value: As it was read.
        known: Weights of containers by identity. What contains itself has no end.
    """
    if isinstance(value, str | bytes | bytearray):
        return 1 + len(value) // 8
    if isinstance(value, np.ndarray):
        return 1 + value.size
    if not isinstance(value, list | tuple | dict | set | frozenset):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        parts = chain(value, value.values()) if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_weight(part, known) for part in parts)
    return known[id(value)]


class PlainUnpickler(pickle._Unpickler):
    """Knows the names that pickled containers and arrays of numbers ask for.

    Written in Python, it can count what is referred to again before it is hashed.
    """

    dispatch: ClassVar = pickle._Unpickler.dispatch.copy()
    _OBJECTS = pickle.INST + pickle.OBJ + pickle.NEWOBJ + pickle.NEWOBJ_EX
    for opcode in _OBJECTS + pickle.DUP:  # which no pickler writes
        del dispatch[opcode]

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding='latin1')
        self._left = 2**20 + _MAX_GROWTH * len(data)

    def count(self, value: Any) -> None:
        """Raise ``UnpicklingError`` if values have too many parts."""
        self._left -= _weight(value, {})
        if self._left < 0:
            raise pickle.UnpicklingError('it grows far beyond its size')

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace('__builtin__', 'builtins').replace('._core', '.core')
        if f'{module}.{name}' not in _KNOWN:
            raise pickle.UnpicklingError(
                f'it asks for {module}.{name}, which no plain data needs'
            )
        return _KNOWN[f'{module}.{name}']

    def _counting(load: Callable) -> Callable:
        def get(self: 'PlainUnpickler') -> None:
            load(self)
            self.count(self.stack[-1])

        return get

    for opcode in pickle.GET + pickle.BINGET + pickle.LONG_BINGET:
        dispatch[opcode] = _counting(dispatch[opcode])

    def load_reduce(self) -> None:
        self.count(self.stack[-1])  # may be copied
        super().load_reduce()

    def load_build(self) -> None:
        built, state = self.stack[-2:]
        is_array = isinstance(built, np.ndarray | np.dtype) and isinstance(state, tuple)
        # Fields of a dtype, or attributes of what is no array.
        if not is_array or any(isinstance(one, tuple | dict) for one in state[2:]):
            raise pickle.UnpicklingError('it changes what is no array')
        super().load_build()

    dispatch |= {pickle.REDUCE[0]: load_reduce, pickle.BUILD[0]: load_build}


def read_plain_pickle(
    file: str | Path, *, kind: str = 'a pickle', remedy: str = 'write or fetch it again'
) -> Any:
    """Containers of numbers, text and arrays, of Python 2 or 3; tensors become arrays.

    Raises:
        UserError: the file is missing or damaged, asks for more than these, or grows far
            beyond its size; ``kind`` and ``remedy`` are for the sentence.
    """
    check_file(file)
    subject = f'{file} cannot be read as {kind}'
    with blame(subject, remedy):
        unpickler = PlainUnpickler(Path(file).read_bytes())
        content = unpickler.load()
        unpickler.count(content)
    return content
