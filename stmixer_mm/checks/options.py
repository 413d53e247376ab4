"""Options of the tools, each of a type that knows its range."""

import argparse
import math
from collections.abc import Callable
from contextlib import suppress

from mmengine.config import DictAction


def number(
    kind: type[int | float],
    least: float = -math.inf,
    most: float = 2**31 - 1,
    *,
    above: float = -math.inf,
) -> Callable[[str], int | float]:
    """The type of an option: a number from ``least`` to ``most``, above ``above``."""
    low = f'above {above:g}' if above > least else f'from {least:g}'
    wanted = f'{"whole " * (kind is int)}number {low} up to {most:.10g}'

    def read(text: str) -> int | float:
        with suppress(ValueError):
            value = kind(text)
            if least <= value <= most and above < value:
                return value
        raise argparse.ArgumentTypeError(f'{text!r} is not a {wanted}')

    return read


COUNT = number(int, 1)
SCORE = number(float, 0, 1)
SEED = number(int, 0, 2**32 - 1)


def add_person_thr(parser: argparse.ArgumentParser) -> None:
    """Give a tool the option ``--person-thr``, which yields overrides of a config."""
    parser.add_argument(
        '--person-thr',
        type=lambda text: {'model.head.score_thr': SCORE(text)},
        default={},
        help='leave out persons with lower scores; by default model.head.score_thr '
        'of the config',
    )


def setting(text: str) -> str:
    """Of ``--cfg-options``: KEY=VALUE, which mmengine's ``DictAction`` reads."""
    key, equals, value = text.partition('=')
    with suppress(Exception):  # whatever it meets in a value that it does not know
        DictAction._parse_iterable(value)
        if equals and all(key.split('.')):
            return text
    raise argparse.ArgumentTypeError(
        f'{text!r} is not KEY=VALUE with its brackets closed, VALUE a word, a number '
        'or a list of these'
    )


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Give a tool the option ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=setting,
        action=DictAction,
        help='override settings of the config, as in key=value a.b=1 list="[1,2]"',
    )
