"""Bad input to the tools: the tables in data/, the files that they name, and the law."""

import gzip
import os
import pickle
import re
import shlex
from collections import OrderedDict
from pathlib import Path

import matplotlib
import pytest
import torch
from mmengine.logging import MMLogger
from run_tool import run_tool
from tiny_stmixer import write_model, write_video

from stmixer_mm.errors import UserError


def read_data(name):
    return Path(__file__).with_name('data').joinpath(name).read_text()


GOOD = {
    'detect': 'new.mp4 --model tiny.py --weights tiny.pth --out o',
    'live': 'new.mp4 --model tiny.py --weights tiny.pth',
    'train': 'tiny.py --work-dir w',
    'test': 'tiny.py tiny.pth --work-dir w',
    'evaluate': 'found.csv tiny.py',
    'analyze_results': 'found.csv tiny.py --out o',
    'export': 'tiny.py tiny.pth --to onnx --out o.onnx',
    'convert_annotations': 'cvat.xml --videos . --out o.csv',
    'data/ava_kinetics/convert': 'found.csv --clips clips --out o.csv',
}
FILES = {
    **dict.fromkeys(('text.txt', 'text.onnx'), 'hello\n'),
    'empty': '',
    'found.csv': '0.mp4,1,0.1,0.1,0.5,0.9,1,0.9\n',
    'found_1.csv': '1.mp4,1,0.1,0.1,0.5,0.9,1,0.9\n',
    'no_model.py': 'a = 1\n',
    'broken.py': 'model = dict(\n',
    'no_base.py': "_base_ = './no.py'\n",
    'apex.py': """_base_ = 'tiny.py'
optim_wrapper = dict(type='ApexOptimWrapper')
auto_scale_lr = default_hooks = dict(_delete_=True)
""",
    'averaged.py': """_base_ = 'tiny.py'
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA')]
""",
    'elsewhere.py': "_base_ = 'tiny.py'\ncustom_imports = dict(imports=['elsewhere'])\n",
    'pickled.py': "_base_ = 'tiny.py'\ntest_evaluator = dict(ann_file='truth.pkl')\n",
    'truth.pkl': '',
    'w.bin': 'weights',
    'cut.json': '{"a":',
    'empty.json': '{}',
    'list.json': '[1]',
    'cut.xml': '<a',
    'a.xml': '<a/>',
    'cvat.xml': read_data('cvat.xml'),
}


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ('made_by_a_pickle',)


NO_PICKLE = [RunsCode(), b'video,1\n', gzip.compress(b'', mtime=0), b'(P1\nl.']


def read_table(name):
    """The rows of a table in data/."""
    return [row for row in read_data(name).splitlines() if row and row[0] != '#']


def write_files(folder):
    """A tiny project, and all that the tables name."""
    write_model(folder)
    write_video(folder / 'new.mp4', frames=25, fps=10, size=(96, 64))
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / 'noise.bin').write_bytes(bytes(range(255, 0, -1)) * 12)
    torch.save({'weight': torch.ones(1)}, folder / 'other.pth')
    damaged = bytearray((folder / 'tiny.pth').read_bytes())
    damaged[50_000:50_500] = bytes(500)
    (folder / 'zeros.pth').write_bytes(damaged)
    (folder / 'folder').mkdir()
    (folder / 'picture.png').mkdir()
    (folder / 'clips' / 'abcdefghijk_000000_000010').mkdir(parents=True)
    os.mkfifo(folder / 'pipe')
    for file in 'pictures/0.png', 'others/mAP/classes.csv':
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text('of others')
    return folder


def is_sentence(text):
    """True for an error of one line that is neither a traceback nor a bug's."""
    return '\n' not in text and 'Internal error' not in text and len(text) < 1200


def names_of(command, named):
    """Names of the bad part of a row, of which the sentence has at least one."""
    marked = named or ''.join(re.findall(r'<(\S+)>', command))
    if marked:
        return [marked]
    *_, option, last = ['', *shlex.split(command)]
    key, _, value = last.partition('=')
    options = [option] if option.startswith('--') else []
    return [*options, last, key.split('.')[-1], *([value] if value else [])]


def check_row(row, folder, monkeypatch, capsys):
    """The law: one sentence that names the bad input, an exit status, no output."""
    command, _, named = row.partition(' => ')
    tool, _, arguments = re.sub(r'<(\S+)>', r'\1', command).partition(' ')
    good = GOOD.get(tool, 'tiny.py')
    arguments = arguments.replace('GOOD', good).replace(' -o ', ' --cfg-options ')
    monkeypatch.chdir(folder)
    matplotlib.use('agg')  # no display
    # Runs of one second share a name, and so a logger.
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    with pytest.raises(SystemExit, match=r'^[12]$'):
        run_tool(tool, *shlex.split(arguments))
    printed = capsys.readouterr()
    (line,) = re.findall(r'^(?:\w+\.py: )?error: .*', printed.err, re.MULTILINE)
    assert is_sentence(line)
    assert any(name in line for name in names_of(command, named)), line
    assert 'Traceback' not in printed.out + printed.err
    assert not list(folder.glob('o.*'))


def check_content(path, content, reader):
    """The same law for a function that reads a file, in the current folder."""
    is_raw = isinstance(content, bytes)
    path.write_bytes(content if is_raw else pickle.dumps(content))
    with pytest.raises(UserError) as error:
        reader(path)
    assert str(path) in str(error.value) and is_sentence(str(error.value))
    assert not path.with_name('made_by_a_pickle').exists()
