"""Whatever the tools are given, they end with one sentence: data/bad_input.txt."""

import os
import re
import shlex
from pathlib import Path

import matplotlib
import pytest
from run_tool import run_tool
from tiny_stmixer import write_model, write_video

LINES = Path(__file__).parents[1].joinpath('data', 'bad_input.txt').read_text('utf-8')
ROWS = [line.split(' => ') for line in LINES.splitlines() if ' => ' in line]
GOOD = {
    'demo': 'new.mp4 tiny.py tiny.pth --out o.mp4',
    'live': 'new.mp4 tiny.py tiny.pth',
    'train': 'tiny.py --work-dir w',
    'test': 'tiny.py tiny.pth --work-dir w',
    'evaluate': 'found.csv tiny.py',
    'analyze_results': 'found.csv tiny.py --out o',
    'export': 'tiny.py tiny.pth --to torch --out o.pt2',
    'analysis/two_stage_peer': 'tiny.py --video new.mp4',
    'convert_annotations': 'cvat.xml --videos . --out o.csv',
    'data/ava_kinetics/convert': 'found.csv --clips clips --out o.csv --frames',
}
FILES = {
    'text.txt': 'hello\n',
    'empty': '',
    'empty.txt': '',
    'found.csv': '0.mp4,1,0.1,0.1,0.5,0.9,1,0.9\n',
    'no_model.py': 'a = 1\n',
    'unnamed.csv': '0.mp4,1,0.1,0.1,0.5,0.9,1,-1\n0.mp4,2,0.1,0.1,0.5,0.9,1,-1\n',
    'sequences.py': """_base_ = 'tiny.py'
sequences = dict(_delete_=True, type='KeyframeSequences', dataset=_base_.dataset)
train_dataloader = dict(dataset=sequences)
""",
    'numbers.py': "_base_ = 'tiny.py'\nmodel = {1: 2}\n",
    'cut.json': '{"a":',
    'empty.json': '{}',
    'list.json': '[1]',
    'coco.json': """{
        "videos": [{"id": 1, "name": "new.mp4", "width": 96, "height": 64}],
        "images": [{"id": 1, "video_id": 1, "frame_id": 0}],
        "categories": [{"id": 1, "name": "walk"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 30]}
        ]
    }""",
    'cut.xml': '<a',
    'a.xml': '<a/>',
    'cvat.xml': """<annotations>
        <version>1.1</version>
        <meta><task><name>new</name><size>25</size><source>new.mp4</source>
            <original_size><width>96</width><height>64</height></original_size>
            <labels><label><name>person</name><attributes><attribute>
                <name>walk</name><input_type>checkbox</input_type>
            </attribute></attributes></label></labels>
        </task></meta>
        <track id="0" label="person">
            <box frame="0" xtl="1" ytl="1" xbr="30" ybr="40" outside="0">
                <attribute name="walk">true</attribute>
            </box>
        </track>
    </annotations>""",
}


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('project')
    write_model(folder)
    write_video(folder / 'new.mp4', frames=25, fps=10, size=(96, 64))
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / 'noise.bin').write_bytes(bytes(range(255, 0, -1)) * 12)
    (folder / 'folder').mkdir()
    (folder / 'picture.png').mkdir()
    (folder / 'clips' / 'abcdefghijk_000000_000010').mkdir(parents=True)
    os.mkfifo(folder / 'pipe')
    return folder


@pytest.mark.parametrize(('command', 'words'), ROWS, ids=[row for row, _ in ROWS])
def test_a_tool_ends_with_one_sentence(project, monkeypatch, capsys, command, words):
    tool, _, arguments = command.partition(' ')
    good = GOOD.get(tool, 'tiny.py')
    arguments = arguments.replace('GOOD', good).replace(' -o ', ' --cfg-options ')
    monkeypatch.chdir(project)
    matplotlib.use('agg')  # no display
    with pytest.raises(SystemExit) as leave:
        run_tool(tool, *shlex.split(arguments))
    printed = capsys.readouterr()
    (line,) = re.findall(r'^(?:\w+\.py: )?error: .*', printed.err, re.MULTILINE)
    assert leave.value.code in (1, 2)
    assert words in line
    assert 'Unforeseen' not in line
    assert 'Traceback' not in printed.out + printed.err
    assert not list(project.glob('o.*'))
