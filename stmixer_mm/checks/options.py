"""Names of :mod:`stmixer_mm.command_line` for tools with parsers of their own."""

# ruff: noqa: F401
import argparse

from stmixer_mm.command_line import (
    CfgOptions,
    Count,
    NotNegative,
    OptionsOf,
    PersonThr,
    Positive,
    Score,
    Seed,
    _form,
    add_options,
    number,
    run_main,
)

COUNT, SCORE, SEED = number(int, 1), number(float, 0, 1), number(int, 0, 2**32 - 1)


def add_person_thr(parser: argparse.ArgumentParser) -> None:
    """Give a tool the option ``--person-thr``, which yields overrides of a config."""
    parser.add_argument('--person-thr', **{'default': {}, **_form(PersonThr)})


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Give a tool the option ``--cfg-options``."""
    parser.add_argument('--cfg-options', **_form(CfgOptions))
