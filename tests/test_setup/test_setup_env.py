"""The set-up's laws, in real environments with a stand-in for pip."""

import subprocess
import sys

import pytest
from run_tool import load_tool


def test_a_python_that_does_not_fit_is_named_before_anything_is_done(
    monkeypatch, tmp_path
):
    tool = load_tool('tools/setup_env.py')
    monkeypatch.setattr(tool, 'LOG', tmp_path / 'log')
    monkeypatch.setattr(tool, 'STAMP', tmp_path / 'stamp')
    monkeypatch.setattr(sys, 'version_info', (3, 14, 0))
    with pytest.raises(SystemExit, match=r'set-up: .* Python 3.10 to 3.13'):
        tool.main(['--here'])


def test_venv_is_made_again_where_its_python_is_gone(monkeypatch, tmp_path):
    tool = load_tool('tools/setup_env.py')
    monkeypatch.setattr(tool, 'ROOT', tmp_path)
    python = tmp_path / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.symlink_to(tmp_path / 'a Python that is gone')
    assert tool.make_venv() == str(python)
    subprocess.run([python, '-m', 'pip', '--version'], check=True)
    assert (tmp_path / '.venv/bin/pip').exists()
