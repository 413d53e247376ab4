import json
import runpy
import sys
from pathlib import Path

import pytest
from tiny_stmixer import write_model

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmark.py'
SMALL = [
    '--stages',
    '1',
    '--queries',
    '3',
    '--points',
    '2',
    '--frames',
    '2',
    '--size',
    '40x50',
    '--turns',
    '1',
]


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    config, _ = write_model(tmp_path_factory.mktemp('project'))
    return str(config)


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    def run(*options):
        out = tmp_path / 'rows.json'
        monkeypatch.setattr(
            sys, 'argv', ['benchmark.py', *SMALL, '--json', str(out), *options]
        )
        runpy.run_path(str(TOOL), run_name='__main__')
        return json.loads(out.read_text())

    return run


def test_a_row_for_each_combination(benchmark, capsys):
    rows = benchmark('--mode', 'forward', 'train', '--batch', '1', '2')
    cases = [(row['mode'], row['batch']) for row in rows]
    assert cases == [('forward', 1), ('forward', 2), ('train', 1), ('train', 2)]
    for row in rows:
        assert row['frames'] == 2 and row['dtype'] == 'float32'
        assert row['device'] == 'cpu' and row['backend'] == 'embedding_bag'
        assert min(row[key] for key in ('ours_s', 'literal_s', 'matmul_s')) > 0
        assert row['ratio'] == pytest.approx(row['literal_s'] / row['ours_s'], rel=0.1)
        assert min(row['ours_peak_mb'], row['literal_peak_mb']) >= 0
    assert min(rows[-1]['ours_kept_mb'], rows[-1]['literal_kept_mb']) > 0
    assert 'train 2' in capsys.readouterr().out


def test_half_precision_is_compared_with_ours_in_float32(benchmark):
    (row,) = benchmark('--dtype', 'bfloat16', '--profile')
    assert row['float32_ratio'] == pytest.approx(
        row['float32_s'] / row['ours_s'], rel=0.1
    )
    assert row['launches'] > 0 and 0 <= row['idle_part'] <= 1


def test_sampling_alone(benchmark):
    (row,) = benchmark('--part', 'sampling', '--backend', 'grid_sample')
    assert row['matmul_s'] is None and row['backend'] == 'grid_sample'


def test_packed_weights(benchmark):
    (row,) = benchmark('--packed')
    assert row['packed'] and row['ours_s'] > 0
    with pytest.raises(SystemExit):
        benchmark('--packed', '--mode', 'train')


def test_sweep_and_its_picture(benchmark, tmp_path, monkeypatch):
    rows = benchmark('--sweep', '--size', '32x32', '--plot', str(tmp_path / 'a.png'))
    for size in ('batch', 'queries', 'frames', 'points'):
        assert len({row[size] for row in rows}) > 2
    assert (tmp_path / 'a.png').stat().st_size > 1000


def test_a_whole_model(benchmark, project):
    options = '--part', 'model', '--mode', 'forward', 'train', '--config', project
    forward, train = benchmark(*options)
    assert min(forward['ours_s'], forward['literal_s']) > 0
    assert min(train['ours_kept_mb'], train['literal_kept_mb']) > 0


def test_runtimes_in_turns(benchmark, project, capsys):
    rows = benchmark(
        *('--runtime', 'torch', 'openvino', '--precision', 'fp32', 'int8'),
        *('--batch', '2', '--config', project),
    )
    names = [(row['runtime'], row['precision']) for row in rows]
    assert names == [('torch', 'fp32'), ('openvino', 'fp32'), ('openvino', 'int8')]
    assert rows[0]['ratio'] == 1
    assert all(row['seconds'] > 0 and row['batch'] == 2 for row in rows)
    printed = capsys.readouterr().out
    assert '2 clips [2, 40, 50]' in printed and 'fastest here: ' in printed


def test_a_runtime_without_the_precision_is_named(benchmark, project, capsys):
    with pytest.raises(SystemExit):
        benchmark(
            *('--runtime', 'onnxruntime', '--precision', 'bf16', '--config', project)
        )
    assert '--runtime onnxruntime has no --precision bf16' in capsys.readouterr().err
