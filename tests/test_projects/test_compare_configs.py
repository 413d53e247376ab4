import contextlib
import json
import runpy
import subprocess
import sys

import pytest
from run_tool import run_tool
from tiny_stmixer import write_project

RUN = subprocess.run


def run_here(command, stdout=None, **options):
    """As ``subprocess.run``, but scripts of Python run in this process."""
    if command[0] != sys.executable:
        return RUN(command, stdout=stdout, **options)
    code = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout):
        patch.setattr(sys, 'argv', command[1:])
        patch.setattr(sys, 'stderr', stdout)
        try:
            runpy.run_path(command[1], run_name='__main__')
        except SystemExit as leave:
            code = leave.code
    return subprocess.CompletedProcess(command, code)


@pytest.fixture
def compare(monkeypatch, tmp_path):
    def run(*args):
        out = tmp_path / 'rows.json'
        monkeypatch.setattr(subprocess, 'run', run_here)
        options = ('--work-dir', tmp_path / 'compare', '--json', out)
        run_tool('analysis/compare_configs', *args, *options)
        return json.loads(out.read_text())

    return run


def test_configs_are_trained_once_and_compared(compare, tmp_path, capsys):
    config = write_project(tmp_path)
    child = tmp_path / 'fewer_queries.py'
    child.write_text(
        f'_base_ = {str(config)!r}\nmodel = dict(decoder=dict(num_queries=2))'
    )
    rows = compare(config, child, '--turns', 1)
    assert [row['config'] for row in rows] == ['tiny', 'fewer_queries']
    whole, fewer = (row['parameters_m'] for row in rows)
    # Two queries of 16 numbers less in both sets.
    assert whole - fewer == pytest.approx(2 * 2 * 16 / 1e6)
    assert all(0 <= row['mAP/overall'] <= 1 for row in rows)
    assert all(row['seconds_per_step'] > 0 for row in rows)

    checkpoint = tmp_path / 'compare/tiny/epoch_1.pth'
    trained_at = checkpoint.stat().st_mtime_ns
    (row,) = compare(config, '--turns', 1)
    assert row['mAP/overall'] == rows[0]['mAP/overall']
    assert checkpoint.stat().st_mtime_ns == trained_at
    with pytest.raises(SystemExit):
        compare(config, '--seed', 1, '--turns', 1)
    assert 'compare/tiny contains a training with other set' in capsys.readouterr().err
    assert checkpoint.stat().st_mtime_ns == trained_at


def test_a_training_that_fails_is_named(compare, tmp_path, capsys):
    config = write_project(tmp_path)
    with pytest.raises(SystemExit):
        compare(config, '--cfg-options', 'load_from=absent.pth')
    assert f'error: Training {config} failed' in capsys.readouterr().err
