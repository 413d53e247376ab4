"""Command lines made from the signatures and docstrings of functions.

The type of a parameter may be annotated for the command line: with a function that reads
its text (:func:`number`), or with keywords of ``add_argument`` as a dict.
"""

import argparse
import inspect
import math
import re
import textwrap
import types
from collections import abc
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from mmengine.config import DictAction

from stmixer_mm.errors import user_errors


def number(
    kind: type[int | float],
    least: float = -math.inf,
    most: float = 2**31 - 1,
    *,
    above: float = -math.inf,
) -> Callable[[str], int | float]:
    """The type of an option: a number from ``least`` to ``most``, above ``above``."""
    low = f'above {above:g}' if above > least else f'from {least:g}'
    description = f'{"whole " * (kind is int)}number {low} up to {most:.10g}'

    def read(text: str) -> int | float:
        with suppress(ValueError):
            value = kind(text)
            if least <= value <= most and above < value:
                return value
        raise argparse.ArgumentTypeError(f'{text!r} is not a {description}')

    return read


def setting(text: str) -> str:
    """KEY=VALUE of ``--cfg-options``, which mmengine's ``DictAction`` reads."""
    key, equals, value = text.partition('=')
    with suppress(Exception):  # whatever DictAction raises for an unknown value
        DictAction._parse_iterable(value)
        if equals and all(key.split('.')):
            return text
    raise argparse.ArgumentTypeError(
        f'{text!r} is not KEY=VALUE with its brackets closed, VALUE a word, a number '
        'or a list of these'
    )


def read_shard(text: str) -> tuple[int, int]:
    """I/N of ``--shard``."""
    number, _, count = text.partition('/')
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f'{text!r} is not I/N with I from 0 to N - 1')
    return int(number), int(count)


Shard = Annotated[tuple[int, int], dict(type=read_shard, nargs=None, metavar='I/N')]
Count = Annotated[int, number(int, 1)]
Score = Annotated[float, number(float, 0, 1)]
Seed = Annotated[int, number(int, 0, 2**32 - 1)]
Positive = Annotated[float, number(float, above=0)]
NotNegative = Annotated[float, number(float, 0)]
CfgOptions = Annotated[
    dict | None,
    dict(
        nargs='+',
        type=setting,
        action=DictAction,
        help='override settings of the config, as in key=value a.b=1 list="[1,2]"',
    ),
]
PersonThr = Annotated[
    dict | None,
    dict(
        type=lambda text: {'model.head.score_thr': number(float, 0, 1)(text)},
        help='leave out persons with lower scores (default: model.head.score_thr of '
        'the config)',
    ),
]


class OptionsOf(NamedTuple):
    """Annotation of a dict with the keyword-only arguments of another function.

    ``main(*, detection: Annotated[dict, OptionsOf(detect, without=('out',))])`` has the
    options of ``detect``, and can call ``detect(video, **detection)``.
    """

    function: Callable
    without: Sequence[str] = ()

    def names(self) -> list[str]:
        parameters = inspect.signature(self.function).parameters.values()
        return [
            parameter.name
            for parameter in parameters
            if parameter.kind is parameter.KEYWORD_ONLY
            and parameter.name not in self.without
        ]


def overrides(
    *, person_thr: PersonThr = None, cfg_options: CfgOptions = None
) -> dict[str, Any]:
    """Overrides of the config from a command line, dotted key -> value."""
    return (person_thr or {}) | (cfg_options or {})


Overrides = Annotated[dict, OptionsOf(overrides)]


def run_main(main: Callable) -> Any:
    """Call a function with the arguments of the command line.

    Keyword-only ones become ``--dashed-names``, the others positional arguments. Types
    and choices follow from the annotations, help from ``Args`` of the docstring. An
    error ends the program with one sentence.
    """
    parser, nested = make_parser(main)
    args = vars(parser.parse_args())
    for name, options in nested.items():
        args[name] = {option: args.pop(option) for option in options.names()}
    with user_errors():
        return main(**args)


def make_parser(
    main: Callable,
) -> tuple[argparse.ArgumentParser, dict[str, 'OptionsOf']]:
    """The parser of a function's command line, and what :func:`add_options` returns."""
    doc = inspect.cleandoc(main.__doc__ or '').partition('Args:')[0].strip()
    parser = argparse.ArgumentParser(description=doc or main.__globals__['__doc__'])
    return parser, add_options(parser, main)


def add_options(
    parser: argparse.ArgumentParser,
    function: Callable,
    names: Collection[str] | None = None,
) -> dict[str, OptionsOf]:
    """Add the parameters of a function (those named, or all) to a command line.

    Returns:
        The parameters that have options of other functions in their place.
    """
    helps, nested = _read_helps(function), {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        metadata = getattr(parameter.annotation, '__metadata__', ())
        options = [value for value in metadata if isinstance(value, OptionsOf)]
        if options:
            (nested[parameter.name],) = options
            add_options(parser, options[0].function, options[0].names())
        elif names is None or parameter.name in names:
            form = _form(parameter.annotation)
            form['help'] = helps.get(parameter.name, form.get('help', ''))
            default = parameter.default
            has_default = default is not parameter.empty
            if has_default:
                form['default'] = default
                has_text = default in (None, False, ()) or 'default' in form['help']
                form['help'] += '' if has_text else ' (default: %(default)s)'
            if parameter.kind is parameter.KEYWORD_ONLY:
                flag = form.pop('flag', f'--{parameter.name.replace("_", "-")}')
                form |= dict(dest=parameter.name, required=not has_default)
                parser.add_argument(flag, **form)
            else:
                optional = dict(nargs='?') if has_default else {}
                parser.add_argument(parameter.name, **optional | form)
    return nested


def _form(annotation: object) -> dict[str, Any]:
    """Keywords of ``add_argument`` for an annotation."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        form = _form(args[0])
        for metadata in args[1:]:
            form |= metadata if isinstance(metadata, dict) else dict(type=metadata)
        return form
    if origin in (Union, types.UnionType):  # the first of X | None
        return _form(args[0])
    if origin is Literal:
        return dict(choices=args, type=type(args[0]))
    if origin in (list, tuple, abc.Sequence):
        is_fixed = origin is tuple and ... not in args
        return _form(args[0]) | dict(nargs=len(args) if is_fixed else '+')
    if annotation is bool:
        return dict(action='store_true')
    if annotation in (int, float):
        return dict(type=number(annotation))
    return dict(type=Path) if annotation is Path else {}


def _read_helps(function: Callable) -> dict[str, str]:
    """Descriptions of arguments in a docstring of Google's style."""
    _, _, section = (inspect.getdoc(function) or '').partition('Args:\n')
    section = textwrap.dedent(section.partition('\n\n')[0])
    entries = re.split(r'^(\w[\w, ]*): ', section, flags=re.MULTILINE)
    helps = {}
    for names, text in zip(entries[1::2], entries[2::2], strict=True):
        text = re.sub(r':\w+:`[.~]*(.*?)`|``', r'\1', ' '.join(text.split()))
        helps |= dict.fromkeys(names.split(', '), text.rstrip('.').replace('%', '%%'))
    return helps
