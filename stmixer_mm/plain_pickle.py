"""Pickles of numbers, text, containers and arrays, read without running their code.

A pickle is a program. This one can call what is in ``_KNOWN`` and nothing else.
"""

import pickle
from collections import OrderedDict, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.errors import blame
from stmixer_mm.files import check_file


def _dtype(code: str, *flags: Any) -> np.dtype:
    if np.dtype(code).kind not in 'biufSU':
        raise pickle.UnpicklingError(
            f'it has an array of {code!r}, not of numbers or text'
        )
    return np.dtype(code, *flags)


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
    kind: str = 'a pickle',
    remedy: str = 'write or fetch it again',
) -> Any:
    """Containers of numbers, text and arrays, of Python 2 or 3.

    Raises:
        UserError: the file is missing or damaged, or asks for more than these; ``kind``
            and ``remedy`` are for the sentence.
    """
    check_file(file)
    subject = f'{file} cannot be read as {kind}'
    with blame(subject, remedy), open(file, 'rb') as opened:
        return PlainUnpickler(opened, encoding='latin1').load()
