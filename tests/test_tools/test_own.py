"""stmixer own: from a folder of videos and annotations to a training."""

from pathlib import Path
from subprocess import CompletedProcess

import pytest
from run_tool import run_and_fail, run_tool
from tiny_stmixer import ROOT, write_video

from stmixer_mm.apis.config import check_arguments, load_config
from stmixer_mm.datasets.annotations.ava_csv import read_keyframe_rows

PAGE = (ROOT / 'docs' / 'own_data.md').read_text()
XML = PAGE.split('```xml\n')[1].split('```')[0]


@pytest.fixture
def run(monkeypatch):
    """Runs the tool; returns the command lines of other verbs that it runs."""
    commands = []

    def note(command, **_):
        commands.append(' '.join(map(str, command[2:])))
        return CompletedProcess(command, 0)

    monkeypatch.setattr('subprocess.run', note)

    def run(*arguments):
        run_tool('own', *arguments)
        return commands

    return run


def annotate(folder, *names):
    for name in names:
        write_video(str(folder / f'{Path(name).stem}.mp4'), frames=60, fps=12)
        path = folder / f'{name}.xml'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(XML.replace('01', Path(name).stem))


def video_ids(path):
    return {row.video_id[:2] for row in read_keyframe_rows(str(path))[0]}


def test_every_fifth_video_is_evaluated_on(tmp_path, run):
    annotate(tmp_path, '02', '03', '04', '05', '06', '07')
    config = tmp_path / 'own.py'
    assert run(tmp_path) == [
        f'check {config}',
        f'browse {config} --sheet {tmp_path / "train.jpg"}',
        f'train {config} --resume',
    ]
    assert video_ids(tmp_path / 'val.csv') == {'06'}
    assert video_ids(tmp_path / 'train.csv') == {'02', '03', '04', '05', '07'}
    cfg = load_config(str(config))
    check_arguments(cfg)
    assert cfg.model.head.num_classes == 4 and cfg.load_from == 'stmixer-n_jhmdb'


def test_folders_train_and_val_are_splits(tmp_path, run):
    annotate(tmp_path, 'train/02', 'val/03')
    run(tmp_path, '--no-train')
    assert video_ids(tmp_path / 'train.csv') == {'02'}
    assert video_ids(tmp_path / 'val.csv') == {'03'}


def test_files_that_are_there_stay(tmp_path, run):
    annotate(tmp_path, '02', '03')
    commands = run(tmp_path, '--no-train')
    for name in ('own.py', 'train.csv'):
        (tmp_path / name).write_text(f'# mine\n{(tmp_path / name).read_text()}')
    assert run(tmp_path, '--no-train')[:2] == commands[:2]
    for name in ('own.py', 'train.csv'):
        assert (tmp_path / name).read_text().startswith('# mine')


@pytest.mark.parametrize(
    ('names', 'sentence'),
    [
        ((), 'has no annotation'),
        (('02',), 'of a single video, 02.mp4; annotate another'),
    ],
)
def test_folders_that_cannot_be_learned(tmp_path, capsys, names, sentence):
    annotate(tmp_path, *names)
    assert sentence in run_and_fail(capsys, 'own', tmp_path)
