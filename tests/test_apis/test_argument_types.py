from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import pytest

from stmixer_mm.checks.argument_types import fits


@pytest.mark.parametrize(
    ('hint', 'fitting', 'others'),
    [
        (int, [3, np.int64(3)], ['3', 3.0, True, None, [3]]),
        (float, [3, 0.5, np.float32(1)], ['0.5', True, None, [0.5]]),
        (bool, [True, 0, np.True_], ['yes', None, 0.5]),
        (str, ['a', Path('a')], [3, None, ['a']]),
        (int | None, [3, None], ['None', 0.5]),
        (Optional[dict], [{}, None], ['a', []]),  # noqa: UP045
        (Literal['a', 'b'], ['a'], ['c']),
        (Sequence[int], [[1], (1, 2), [], np.ones(2, int)], ['12', 3, ['a'], {1: 1}]),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), (1, 'a'), 3]),
        (tuple[int, ...], [(1,), [1, 2]], ['12', (1, 'a')]),
        (list, [[1], ('a',)], ['a', 3]),
        (Mapping[str, str], [{}, {'a': 'b'}], [{'a': 1}, 'a', None]),
        (str | Sequence[str], ['a', ['a']], [['a', 1], None, 5]),
        (Sequence[dict | Callable], [[{}, print]], [['a'], 'a']),
        (np.ndarray, [np.ones(2), [1, 2], {}], ['a', 3, None]),
        (Any, [3, 'a', None], []),
        ('int | None', [3, 'a', None], []),  # not evaluated
    ],
    ids=str,
)
def test_values_fit_their_types(hint, fitting, others):
    assert [value for value in fitting if not fits(value, hint)] == []
    assert [value for value in others if fits(value, hint)] == []
