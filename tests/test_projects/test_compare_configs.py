import contextlib
import json
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
    with contextlib.redirect_stdout(stdout):
        run_tool('train', *command[2:])
    return subprocess.CompletedProcess(command, 0)


@pytest.fixture
def compare(monkeypatch, tmp_path):
    def run(*args):
        out = tmp_path / 'rows.json'
        monkeypatch.setattr(subprocess, 'run', run_here)
        options = '--work-dir', tmp_path / 'compare', '--turns', 1, '--json', out
        run_tool('analysis/compare_configs', *args, *options)
        return json.loads(out.read_text())

    return run


def test_configs_are_trained_once_and_compared(compare, tmp_path, capsys):
    config, child = write_project(tmp_path), tmp_path / 'fewer.py'
    child.write_text("_base_ = 'tiny.py'\nmodel = dict(decoder=dict(num_queries=2))")
    rows = compare(config, child)
    assert [row['config'] for row in rows] == ['tiny', 'fewer']
    whole, fewer = (row['parameters_m'] for row in rows)
    # Two queries of 16 numbers less in both sets.
    assert whole - fewer == pytest.approx(2 * 2 * 16 / 1e6)
    assert all(0 <= row['mAP/overall'] <= 1 for row in rows)
    assert all(row['seconds_per_step'] > 0 for row in rows)

    checkpoint = tmp_path / 'compare/tiny/epoch_1.pth'
    trained_at = checkpoint.stat().st_mtime_ns
    (row,) = compare(config)
    assert row['mAP/overall'] == rows[0]['mAP/overall']
    with pytest.raises(SystemExit):
        compare(config, '--seed', 1)
    assert 'compare/tiny contains a training with other set' in capsys.readouterr().err
    assert checkpoint.stat().st_mtime_ns == trained_at
