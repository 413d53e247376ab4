"""Pickles of numbers, text, containers, arrays and tensors, read without their code.

A pickle is a program. This one can call what is in ``_KNOWN`` and nothing else.
"""

import io
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._utils import _rebuild_tensor_v2

from stmixer_mm.errors import blame
from stmixer_mm.files import check_file

_KINDS = 'biufSU'  # of arrays: numbers and text


def _dtype(code: str, *_: Any) -> np.dtype:
    if np.dtype(code).kind not in _KINDS:
        raise pickle.UnpicklingError(
            f'it has an array of {code!r}, not of numbers or text'
        )
    return np.dtype(code, False, True)  # a copy, which is changed later


def _storage(data: bytes) -> torch.TypedStorage:
    return torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)


def _array(storage: torch.TypedStorage, offset: int, size: tuple, *args: Any) -> Any:
    """A tensor as an array, which torch keeps within its storage."""
    tensor = _rebuild_tensor_v2(storage, offset, size, *args).detach()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


# By their names in Python 3 and numpy 1.
_KNOWN = {
    # How Python 3 writes bytes in protocol 2, and no bytes.
    '_codecs.encode': str.encode,
    'builtins.bytes': lambda: b'',
    **{f'builtins.{kind.__name__}': kind for kind in (list, dict, int, float)},
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


class PlainUnpickler(pickle.Unpickler):
    """Knows the names that pickled containers and arrays of numbers ask for."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace('__builtin__', 'builtins').replace('._core', '.core')
        function = _KNOWN.get(f'{module}.{name}')
        if function is None:
            raise pickle.UnpicklingError(
                f'it asks for {module}.{name}, which no plain data needs'
            )
        if isinstance(function, type):
            return function
        # A pickle may set the attributes of what it is given: not those of our functions.
        return lambda *values: function(*values)


def read_plain_pickle(
    file: str | Path, *, kind: str = 'a pickle', remedy: str = 'write or fetch it again'
) -> Any:
    """Containers of numbers, text and arrays, of Python 2 or 3; tensors become arrays.

    Raises:
        UserError: the file is missing or damaged, or asks for more than these; ``kind`` and
            ``remedy`` are for the sentence.
    """
    check_file(file)
    content = Path(file).read_bytes()
    with blame(f'{file} cannot be read as {kind}', remedy):
        return PlainUnpickler(io.BytesIO(content), encoding='latin1').load()
