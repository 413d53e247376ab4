"""Command line tools, run in the process of the tests."""

import importlib.util
import re
import runpy
import socket
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def load_tool(script):
    """A tool as a module, by its path in this repository."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def run_tool(tool, *args):
    """Run a tool of this repository (its name) or of another one (its path)."""
    path = tool if isinstance(tool, Path) else ROOT / 'tools' / f'{tool}.py'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(path), *map(str, args)])
        patch.setenv('LOCAL_RANK', '0')
        runpy.run_path(str(path), run_name='__main__')


def named(model):
    """Options of detect and live for a config and its checkpoint."""
    config, checkpoint = model
    return '--model', config, '--weights', checkpoint


def run_and_fail(capsys, tool, *args):
    """The one line that a tool ends with."""
    with pytest.raises(SystemExit) as leave:
        run_tool(tool, *args)
    assert leave.value.code == 1
    printed = capsys.readouterr().err.splitlines()
    (line,) = [line for line in printed if line.startswith('error: ')]
    return line


def python_blocks(page):
    """The Python on a page of this repository, block by block."""
    text = (ROOT / page).read_text()
    return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]
