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


@pytest.fixture
def annotate(tmp_path, write_text):
    def annotate(*names):
        for name in names:
            stem = Path(name).stem
            write_video(str(tmp_path / f'{stem}.mp4'), frames=60, fps=12)
            write_text(f'{name}.xml', XML.replace('01', stem))

    return annotate


def videos_of(folder):
    """Of both splits."""
    rows = (read_keyframe_rows(f'{folder}/{name}.csv')[0] for name in ('train', 'val'))
    return [{row.video_id[:2] for row in split} for split in rows]


def test_every_fifth_video_is_evaluated_on(tmp_path, annotate, run):
    annotate('02', '03', '04', '05', '06', '07')
    config = tmp_path / 'own.py'
    assert run(tmp_path) == [
        f'check {config}',
        f'browse {config} --sheet {tmp_path / "train.jpg"}',
        f'train {config} --resume',
    ]
    assert videos_of(tmp_path) == [{'02', '03', '04', '05', '07'}, {'06'}]
    cfg = load_config(str(config))
    check_arguments(cfg)
    assert cfg.model.head.num_classes == 4 and cfg.load_from == 'stmixer-n_jhmdb'


def test_folders_train_and_val_are_splits_and_files_that_are_there_stay(
    tmp_path, annotate, run
):
    annotate('train/02', 'val/03')
    commands = run(tmp_path, '--no-train')[:2]
    assert videos_of(tmp_path) == [{'02'}, {'03'}]
    files = tmp_path / 'own.py', tmp_path / 'train.csv'
    for file in files:
        file.write_text(f'# mine\n{file.read_text()}')
    assert run(tmp_path, '--no-train')[-2:] == commands
    assert all(file.read_text().startswith('# mine') for file in files)


@pytest.mark.parametrize(
    ('names', 'sentence'),
    [((), 'has no annotation'), (('02',), 'of a single video, 02.mp4')],
)
def test_folders_that_cannot_be_learned(tmp_path, annotate, capsys, names, sentence):
    annotate(*names)
    assert sentence in run_and_fail(capsys, 'own', tmp_path)
