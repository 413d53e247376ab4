"""docs/own_data.md, followed line by line in a temporary folder."""

import json
import re
import shlex
import shutil
from collections import Counter
from itertools import chain
from pathlib import Path

import cv2
import pytest
from run_tool import run_tool
from tiny_stmixer import ROOT, write_video

from stmixer_mm.apis.config import check_arguments, load_config
from stmixer_mm.datasets.annotations.ava_csv import read_keyframe_rows
from stmixer_mm.datasets.annotations.tube_annotations import read_tube_annotations
from stmixer_mm.projects.annotate.convert import convert_annotations, read_file

TEXT = (ROOT / 'docs' / 'own_data.md').read_text()
BLOCKS = re.findall(r'^```(\w*)\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)


def block(language):
    (block,) = [text for kind, text in BLOCKS if kind == language]
    return block


def run_line(command):
    """Run a line of the page in this process."""
    program, script, *args = shlex.split(command)
    assert program == 'python'
    paths = [sorted(Path().glob(arg)) if '*' in arg else [arg] for arg in args]
    try:
        run_tool(ROOT / script, *chain(*paths))
    except SystemExit as leave:
        assert not leave.code, command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Short configs, ten videos, and the page's XML with their names."""
    monkeypatch.chdir(tmp_path)
    Path('tools').symlink_to(ROOT / 'tools')
    for name in ('_base_', 'small'):
        shutil.copytree(ROOT / 'configs' / name, Path('configs', name))
    for path in Path('configs').rglob('*own*.py'):
        path.write_text(shortened(path.read_text()))
    for number in range(1, 11):
        name = f'{number:02}'
        write_video(f'data/own/videos/{name}.mp4', frames=60, fps=12)
        folder = Path('data/own/cvat', 'train' if number < 9 else 'val')
        folder.mkdir(parents=True, exist_ok=True)
        xml = block('xml').replace('01', name).replace('xtl="8"', f'xtl="{number}"')
        (folder / f'{name}.xml').write_text(xml)


def shortened(text):
    """Two epochs of little frames, loaded in this process."""
    for long, short in (
        ('max_epochs=20, val_interval=5', 'max_epochs=2'),
        ('short_range=(176, 224)', 'short_range=(40, 48)'),
        ('short_range=(256, 320)', 'short_range=(80, 96)'),
        ('scale=(-1, 192)', 'scale=(-1, 48)'),
        ('num_workers=2', 'num_workers=0'),
        ('persistent_workers=True', 'persistent_workers=False'),
    ):
        text = text.replace(long, short)
    return text


def test_the_page_from_its_first_to_its_last_line(folder, capsys):
    num_commands = num_configs = 0
    for language, text in BLOCKS:
        if text.startswith('from '):
            exec(text.replace('epoch_20', 'epoch_2'), {})
        elif language == 'python':
            path = re.match(r'# (data/own/\w+\.py)\n', text)[1]
            assert len(text.splitlines()) <= 21  # 20 and the name
            num_configs += 1
            Path(path).write_text(shortened(text))
        for line in text.splitlines() if language == '' else ():
            if line.startswith('python '):
                run_line(line.replace('epoch_20', 'epoch_2'))
                num_commands += 1
            else:  # which files are where by then
                names = [word.strip(',') for word in line.split() if word != '…']
                place = Path(names[0]).parent
                assert all((place / Path(name).name).is_file() for name in names)
    assert (num_commands, num_configs) == (9, 2)

    # The learning rate falls until the last epoch, however many there are.
    (scalars,) = Path('work_dirs/own_n').glob('*/vis_data/scalars.json')
    lines = map(json.loads, scalars.read_text().splitlines())
    rates = [line['lr'] for line in lines if 'lr' in line]
    assert len(rates) == 2 and rates[-1] < 0.2 * rates[0]

    assert len(read_tube_annotations('data/own/GT.pkl').gttubes['b'][0]) == 2
    for picture in ('train.png', 'train_large.png'):
        assert cv2.imread(f'data/own/{picture}') is not None
    assert len(list(Path('data/own/val_clips').iterdir())) == 4
    assert len(list(Path('data/own/found').rglob('*.jpg'))) == 2 * 5
    for name in ('found.xml', 'found.json'):
        (video,) = read_file(f'data/own/{name}', Counter()).videos
        assert video.names[0] == '10.mp4'
    printed = capsys.readouterr().out
    assert 'videos: 8, keyframes: 40 (person-free: 0), persons: 40' in printed
    assert 'mAP/overall' in printed
    check_arguments(load_config('data/own/own_slowonly.py'))


def test_the_json_of_the_page_means_what_the_xml_means(folder):
    Path('own.json').write_text(block('json'))
    common = dict(videos='data/own/videos', label_map='ids.pbtxt')
    convert_annotations(['data/own/cvat/train/01.xml'], out='xml.csv', **common)
    convert_annotations(['own.json'], out='json.csv', **common)
    rows_of_xml = read_keyframe_rows('xml.csv')[0]
    expected = {row[4:] for row in rows_of_xml if row.timestamp == 0} | {(3, 0)}
    assert {row[4:] for row in read_keyframe_rows('json.csv')[0]} == expected
