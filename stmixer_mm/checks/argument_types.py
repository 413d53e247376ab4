"""Values of a config against the types that the classes declare for them."""

import inspect
import re
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from os import PathLike

import numpy as np

# Whose signatures say what is taken; those of others are not always right.
_TRUSTED = ('stmixer_mm', 'torch')
_PLAIN = {
    bool: Integral | np.bool_,
    int: Integral,
    float: Real,
    str: str | PathLike,
    types.NoneType: types.NoneType,
}


def wrong_type_sentence(
    part: type, values: Mapping[str, object], *, place: str = ''
) -> str | None:
    """The sentence for the first value that the class ``part`` does not take."""
    where = f' ({place})' if place else ''
    hints = _declared_types(part)
    for argument, value in values.items():
        hint = hints.get(argument, typing.Any)
        if not fits(value, hint):
            wanted = re.sub(r'\b(\w+\.)+', '', inspect.formatannotation(hint))
            return (
                f'The config part type={part.__name__!r}{where} takes {argument} as '
                f'{wanted}, not {reprlib.repr(value)}; correct it.'
            )
    return None


def _declared_types(part: type) -> dict[str, object]:
    hints: dict[str, object] = {}
    for base in reversed(inspect.getmro(part)):
        if '__init__' not in vars(base) or base is object:
            continue
        is_trusted = base.__module__.partition('.')[0] in _TRUSTED
        for parameter in inspect.signature(base.__init__).parameters.values():
            hints[parameter.name] = parameter.annotation if is_trusted else typing.Any
    return hints


def fits(value: object, hint: object) -> bool:
    """Whether a value is of a type, or may become it (a dict of a part, an object).

    Lists are as good as tuples, whole numbers as others, but truth is no number.
    """
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Any, inspect.Parameter.empty):
        return True
    if kind in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if kind is typing.Literal:
        return value in inner
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind in _PLAIN or kind is None:
        return isinstance(value, _PLAIN.get(kind, types.NoneType))
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and all(
            fits(one, inner[1]) for one in (value.values() if inner else ())
        )
    if kind in (list, tuple, Sequence):
        if isinstance(value, str | Mapping) or not hasattr(value, '__len__'):
            return False
        if kind is tuple and Ellipsis not in inner and inner:
            return len(value) == len(inner) and all(map(fits, value, inner))
        return all(fits(one, inner[0]) for one in (value if inner else ()))
    is_plain = isinstance(value, str | Real | types.NoneType)
    return not is_plain or not inspect.isclass(kind) or isinstance(value, kind)
