"""``tools/benchmark.py``: rows of what it compares."""

import json

import pytest
from run_tool import run_tool

SMALL = dict(stages=1, queries=3, points=2, frames=2, size='40x50')


@pytest.fixture
def benchmark(tmp_path):
    def run(*options):
        out = tmp_path / 'rows.json'
        small = [word for key, value in SMALL.items() for word in (f'--{key}', value)]
        run_tool('benchmark', *small, '--turns', 1, '--json', out, *options)
        return json.loads(out.read_text())

    return run


def test_a_row_for_each_combination(benchmark):
    rows = benchmark('--mode', 'forward', 'train', '--batch', '1', '2')
    cases = [(row['mode'], row['batch']) for row in rows]
    assert cases == [('forward', 1), ('forward', 2), ('train', 1), ('train', 2)]
    for row in rows:
        assert min(row['ours_s'], row['literal_s'], row['matmul_s']) > 0
        assert row['ratio'] == pytest.approx(row['literal_s'] / row['ours_s'], rel=0.1)
