"""Command line tools, run in the process of the tests."""

import runpy
import socket
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run_tool(tool, *args):
    """Run a tool of this repository (its name) or of another one (its path)."""
    path = tool if isinstance(tool, Path) else ROOT / 'tools' / f'{tool}.py'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(path), *map(str, args)])
        patch.setenv('LOCAL_RANK', '0')
        runpy.run_path(str(path), run_name='__main__')


def run_and_fail(capsys, tool, *args):
    """The one line that a tool ends with."""
    with pytest.raises(SystemExit) as leave:
        run_tool(tool, *args)
    assert leave.value.code == 1
    printed = capsys.readouterr().err.splitlines()
    (line,) = [line for line in printed if line.startswith('error: ')]
    return line


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]
