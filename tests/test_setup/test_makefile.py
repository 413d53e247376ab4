"""The commands of the Makefile, and that versions stand in one place."""

import os
import shutil
import subprocess
import sys

import pytest
from run_tool import ROOT


@pytest.fixture
def bare_path(tmp_path):
    """A PATH with a shell's tools and no Python."""
    for name in ('sh', 'make'):
        os.symlink(shutil.which(name), tmp_path / name)
    return tmp_path


def run(command, path, **env):
    return subprocess.run(
        command,
        cwd=ROOT,
        env={'PATH': str(path), 'LANG': 'C.UTF-8', **env},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(('minor', 'fits'), [(10, 1), (13, 1), (14, 0)])
def test_python_that_fits_is_chosen(bare_path, minor, fits):
    assert run(['make', 'setup'], bare_path).returncode  # there is none
    for name, version in (('python3', (3, 9)), ('python3.10', (3, minor))):
        python = bare_path / name
        python.write_text(
            f'#!/bin/sh\nif [ "$1" != -c ]; then echo "{name} $*"; exit; fi\n'
            f'exec {sys.executable} -IS -c "import sys; sys.version_info = {version}\n$2"'
        )
        python.chmod(0o755)
    done = run(['make', 'setup'], bare_path)
    assert bool(done.returncode) != fits
    assert done.stdout == 'python3.10 tools/setup_env.py --extras\n' * fits


def test_set_up_comes_before_the_tests_and_gets_the_environment(bare_path):
    python = bare_path / 'python3'
    python.write_text('#!/bin/sh\necho "ran $*"\n')
    python.chmod(0o755)
    lines = run(['make', 'test', f'PYTHON={python}'], bare_path).stdout.splitlines()
    assert lines[0] == 'ran tools/setup_env.py --here --extras test'
    assert lines[1].startswith('ran -m pytest -n')


def test_versions_are_pinned_once():
    files = (ROOT / 'requirements').glob('*.txt')
    lines = [line for path in files for line in path.read_text().splitlines()]
    pins = dict(line.split('==') for line in lines if '==' in line)
    assert len(pins) == sum('==' in line for line in lines) >= 6
    for path in ('setup.cfg', 'setup.py', 'pyproject.toml', 'Makefile'):
        assert not any(f'{name}==' in (ROOT / path).read_text() for name in pins)
    hooks = (ROOT / '.pre-commit-config.yaml').read_text()
    assert f'rev: v{pins["ruff"]}' in hooks


def test_pythons_are_the_same_everywhere():
    config = (ROOT / 'setup.cfg').read_text()
    assert 'python_requires = >=3.10, <3.14' in config
    fits = '(3, 10) <= sys.version_info[:2] <= (3, 13)'
    for path in ('Makefile', 'tools/setup_env.py'):
        assert fits in (ROOT / path).read_text()
