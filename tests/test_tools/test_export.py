"""``tools/export.py``, in the format that needs no further package."""

import json

import pytest
import torch
from run_tool import run_and_fail, run_tool
from tiny_stmixer import write_model, write_video

from stmixer_mm.export import parity


@pytest.fixture(scope='module')
def arguments(tmp_path_factory):
    config, checkpoint = write_model(tmp_path_factory.mktemp('project'))
    video = write_video(config.parent / 'new.mp4', size=(96, 48))
    return config, checkpoint, '--to', 'torch', '--video', video


def test_a_program_that_needs_nothing_of_this_package(arguments, tmp_path, capsys):
    file = tmp_path / 'tiny.pt2'
    run_tool('export', *arguments, '--out', file, '--dynamic', 'batch')
    *_, random, real, written = capsys.readouterr().out.splitlines()
    assert random.split()[:4] == ['torch', 'fp32,', 'random', '2']
    assert real.split()[:4] == ['torch', 'fp32,', 'real', '4']
    assert written.endswith('clips [2, 32, 64]')

    extra = {'stmixer_mm.json': ''}
    program = torch.export.load(file, extra_files=extra)
    about = json.loads(extra['stmixer_mm.json'])
    assert about['classes'] == ['stand', 'walk']
    assert (about['frame_interval'], about['batch']) == (2, None)
    clips = torch.zeros(3, 3, *about['shape'], dtype=torch.uint8)
    outputs = dict(zip(about['outputs'], program.module()(clips), strict=True))
    assert {name: [*each.shape] for name, each in outputs.items()} == dict(
        person_scores=[3, 4],
        action_scores=[3, 4, 2],
        bboxes=[3, 4, 4],
        query_vectors=[3, 4, 16],
    )


def test_what_differs_is_not_written(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(parity.LIMITS, 'fp32', parity.Limits(-1.0, -1.0))
    error = run_and_fail(capsys, 'export', *arguments, '--out', tmp_path / 'tiny.pt2')
    assert 'tiny.pt2 is not written: scores differ by more than -1' in error
    assert not [*tmp_path.iterdir()]
