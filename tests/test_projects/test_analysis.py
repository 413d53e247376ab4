import json

import numpy as np
import pytest
from run_tool import run_tool
from tiny import batch, build_detector, data_sample
from tiny_stmixer import write_project

from stmixer_mm.projects.profiling.flops import count_parts


@pytest.fixture
def run(tmp_path):
    """Run a tool in this process; returns what it writes to --json."""

    def run_analysis(name, *args):
        run_tool(f'analysis/{name}', *args, '--json', tmp_path / 'out.json')
        return json.loads((tmp_path / 'out.json').read_text())

    return run_analysis


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp('project'))


def test_products_of_a_decoder_are_those_counted_by_hand():
    queries, dims, groups, points, frames = 5, 16, 2, 4, 2
    hidden, actions, stages, levels = 32, 3, 2, (16 * 24, 8 * 12, 4 * 6, 2 * 3)
    group_dims = dims // groups

    def branch(rows):
        attention = 4 * dims * dims + 2 * queries * dims
        generated = group_dims**2 + 4 * rows * rows
        mixing = groups * (
            dims * generated
            + rows * group_dims**2
            + 4 * rows * rows * group_dims
            + 4 * rows * group_dims * dims
        )
        return attention + mixing + 2 * dims * hidden

    products = branch(points) + branch(frames) + dims * groups * points * 3
    products += dims * dims + dims * 4
    # Only the last stage tells what it sees.
    read_out = dims * dims + dims * 2 + 2 * dims * 2 * dims + 2 * dims * actions
    model = build_detector().eval()
    model.neck.requires_grad_(False)
    data = model.data_preprocessor(batch(data_sample()))
    rows = {row.part: row for row in count_parts(model, data)}
    assert rows['decoder'].flops == 2 * queries * (stages * products + read_out)
    assert rows['neck'].flops == 2 * dims * frames * np.dot((4, 8, 16, 32), levels)
    assert rows['neck'].parameters > 0 == rows['neck'].trainable
    *parts, total = (row[1:] for row in rows.values())
    assert (np.sum(parts, axis=0) == total).all()


def test_flops_of_a_config(run, config):
    small = run('get_flops', config)
    large = run('get_flops', config, '--shape', 2, 64, 128)
    assert small['clip'] == [2, 32, 64]  # 32x40 of 4:5, padded
    flops = {row['part']: row['flops'] for row in small['rows']}
    larger_flops = {row['part']: row['flops'] for row in large['rows']}
    for part, factor in (('backbone', 4), ('neck', 4), ('decoder', 1)):
        assert larger_flops[part] == factor * flops[part], part


def test_others_are_timed_in_turns_with_a_config(run, config, tmp_path):
    other, calls = f'{tmp_path}/other.py:other', tmp_path / 'calls'
    code = f"def other():\n    return lambda: open('{calls}', 'a').write('x')\n"
    (tmp_path / 'other.py').write_text(code)
    times = run('throughput', config, '--against', other, '--turns', 2)['wall']
    assert list(times) == [str(config), other] and min(times.values()) > 0
    assert calls.read_text() == 3 * 'x'  # once to warm up
