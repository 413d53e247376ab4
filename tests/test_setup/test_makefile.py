"""The commands of the Makefile, and that pins stand in one place."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bare_path(tmp_path):
    """A PATH with a shell's tools and no Python."""
    for name in ('bash', 'sh', 'make', 'env', 'dirname', 'realpath', 'sed', 'expand'):
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


@pytest.mark.parametrize('target', ['setup', 'demo', 'test', 'lint'])
def test_without_any_python_it_says_so(bare_path, target):
    done = run(['make', target], bare_path)
    assert done.returncode
    assert 'There is no Python: install Python 3.10 to 3.12' in done.stderr


def test_set_up_comes_before_the_tests_and_gets_the_environment(bare_path):
    python = bare_path / 'python3'
    python.write_text('#!/bin/sh\necho "ran $*"\n')
    python.chmod(0o755)
    said = run(['make', 'test', f'PYTHON={python}'], bare_path).stdout.splitlines()
    assert said[0] == f'ran tools/setup_env.py --python {python} --extras test'
    assert said[1].startswith('ran -m pytest --cov')


def test_ci_runs_make_test_with_the_real_clips_only_where_they_are(tmp_path, bare_path):
    checkout = tmp_path / 'parent' / 'checkout'
    (checkout / '.ci').mkdir(parents=True)
    shutil.copy(ROOT / '.ci' / 'run', checkout / '.ci')
    (checkout / 'Makefile').write_text('test:\n\t@echo "real=$$STMIXER_REAL_DATA"\n')
    assert run([checkout / '.ci' / 'run'], bare_path).stdout == 'real=\n'
    real = tmp_path / 'parent' / 'shared' / 'real'
    real.mkdir(parents=True)
    assert run([checkout / '.ci' / 'run'], bare_path).stdout == f'real={real}\n'


def test_help_lists_every_target(bare_path):
    targets = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M)
    said = run(['make'], bare_path).stdout
    assert len(targets) >= 5
    assert all(f'make {target} ' in said for target in targets)


def test_ruff_has_one_version():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / 'setup.cfg')
    pinned = config['options.extras_require']['lint'].strip()
    hooks = (ROOT / '.pre-commit-config.yaml').read_text()
    (revision,) = re.findall(r'ruff-pre-commit\n(?:\s*#.*\n)*\s*rev: v(\S+)', hooks)
    assert pinned == f'ruff=={revision}'
