"""Command lines made from signatures; test_cli.py has the help."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from stmixer_mm.command_line import CfgOptions, Count, OptionsOf, Positive, run_main


def detect(video, *, end: Positive | None = None, batch_size: Count = 1):
    pass


def main(
    config: Path,
    files: list[str],
    *,
    split: Literal['train', 'val'] = 'train',
    shape: tuple[Count, Count, Count] | None = None,
    label_file: Annotated[str | None, dict(flag='--label-map')] = None,
    force: bool = False,
    out: str,
    cfg_options: CfgOptions = None,
    detection: Annotated[dict, OptionsOf(detect, without=('batch_size',))],
):
    return locals()


@pytest.fixture
def run(monkeypatch):
    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['tool', *words])
        return run_main(main)

    return run


def test_arguments_are_those_of_the_command_line(run):
    arguments = run('c.py', 'a', 'b', '--out', 'o')
    defaults = dict(split='train', shape=None, label_file=None, force=False)
    options = dict(out='o', cfg_options=None, detection=dict(end=None))
    assert arguments == dict(config=Path('c.py'), files=['a', 'b']) | defaults | options
    arguments = run(
        *('c.py', 'a', '--out', 'o', '--shape', '1', '2', '3', '--label-map', 'm'),
        *('--force', '--end', '2.5', '--split', 'val'),
        *('--cfg-options', 'a=1', 'b.c=[x,2]'),
    )
    options |= dict(detection=dict(end=2.5), cfg_options={'a': 1, 'b.c': ['x', 2]})
    options |= dict(split='val', shape=[1, 2, 3], label_file='m', force=True)
    assert arguments == dict(config=Path('c.py'), files=['a'], **options)
