"""Versions stand in one place, and a Python that does not fit is named."""

import sys

import pytest
from run_tool import ROOT, load_tool


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


def test_a_python_that_does_not_fit_is_named_before_anything_is_done(
    monkeypatch, tmp_path
):
    tool = load_tool('tools/setup_env.py')
    monkeypatch.setattr(tool, 'LOG', tmp_path / 'log')
    monkeypatch.setattr(tool, 'STAMP', tmp_path / 'stamp')
    monkeypatch.setattr(sys, 'version_info', (3, 14, 0))
    with pytest.raises(SystemExit, match=r'set-up: .* Python 3.10 to 3.13'):
        tool.main(['--here'])
