"""The commands of the Makefile, and that versions stand in one place."""

import configparser
import os
import re
import shutil
import subprocess
import sys
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
    assert 'set-up: Python 3.10 to 3.12 is needed' in done.stderr


@pytest.mark.parametrize(('minor', 'fits'), [(9, 0), (10, 1), (12, 1), (13, 0)])
def test_python_that_fits_is_chosen(bare_path, minor, fits):
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
    assert ('python3-venv), or name one with PYTHON=' in done.stderr) != fits


def test_set_up_comes_before_the_tests_and_gets_the_environment(bare_path):
    python = bare_path / 'python3'
    python.write_text('#!/bin/sh\necho "ran $*"\n')
    python.chmod(0o755)
    said = run(['make', 'test', f'PYTHON={python}'], bare_path).stdout.splitlines()
    assert said[0] == 'ran tools/setup_env.py --here --extras test'
    assert said[1].startswith('ran -m pytest -n')


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


def test_versions_are_pinned_once():
    pins = [
        line
        for path in (ROOT / 'requirements').glob('*.txt')
        for line in path.read_text().splitlines()
        if '==' in line
    ]
    names = [pin.partition('==')[0] for pin in pins]
    assert len(names) == len(set(names)) >= 6
    for path in ('setup.cfg', 'setup.py', 'pyproject.toml', 'Makefile'):
        assert not any(f'{name}==' in (ROOT / path).read_text() for name in names)


def test_package_requires_what_the_files_list():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    extras = config['options.extras_require']
    listed = [config['options']['install_requires'], extras['test'], extras['lint']]
    files = ['runtime.txt', 'tests.txt', 'lint.txt']
    assert listed == [f'file: requirements/{name}' for name in files]


def test_ruff_has_one_version():
    pinned = (ROOT / 'requirements/lint.txt').read_text().splitlines()[-1]
    hooks = (ROOT / '.pre-commit-config.yaml').read_text()
    (revision,) = re.findall(r'ruff-pre-commit\n(?:\s*#.*\n)*\s*rev: v(\S+)', hooks)
    assert pinned == f'ruff=={revision}'


def test_pythons_are_the_same_everywhere():
    config = (ROOT / 'setup.cfg').read_text()
    assert 'python_requires = >=3.10, <3.13' in config
    fits = '(3, 10) <= sys.version_info[:2] <= (3, 12)'
    for path in ('Makefile', 'tools/setup_env.py'):
        assert fits in (ROOT / path).read_text()
