"""The command ``stmixer``."""

import subprocess
import sys

import pytest
from run_tool import ROOT, load_tool
from tiny_stmixer import tool_environment

cli = load_tool('tools/cli.py')


def run(*arguments):
    command = [sys.executable, '-X', 'importtime', ROOT / 'tools/cli.py', *arguments]
    environment = tool_environment()
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_help_that_is_kept_is_that_of_the_tools():
    """Written by ``cd tools; python -c 'import cli; cli.write_help()'``."""
    for verb, texts in cli.make_help().items():
        stored = cli.read_help()[verb]
        assert stored['does'] == texts['does']
        # The layout depends on the Python.
        assert {*stored['help'].split()} == {*texts['help'].split()}, verb


@pytest.mark.parametrize(
    ('arguments', 'status', 'shown'),
    [
        ('--help', 0, '  detect    Detect persons'),
        ('train --help', 0, 'usage: stmixer train [-h]'),
        ('trian x.py', 2, "no verb 'trian'; did you mean train?"),
    ],
)
def test_help_imports_neither_the_package_nor_torch(arguments, status, shown):
    done = run(*arguments.split())
    assert done.returncode == status
    imported = [line.split('|')[-1].strip() for line in done.stderr.splitlines()]
    assert shown in done.stdout + done.stderr
    assert not {'torch', 'mmengine', 'stmixer_mm', 'numpy'} & {*imported}


def test_a_verb_runs_its_tool():
    done = run('train', 'stmixer_tiny_1xb8-4x3x1_tyo')
    assert done.returncode == 1
    assert 'did you mean stmixer_tiny_1xb8-4x3x1_toy?' in done.stderr
    assert 'torch._dynamo' not in done.stderr  # a second
