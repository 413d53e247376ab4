import runpy
import sys

import pytest
from tiny_stmixer import ROOT


@pytest.mark.parametrize(
    ('tool', 'args'),
    [
        ('convert_annotations', ['none.xml', '--videos', '.', '--out', '{out}']),
        ('data/ava_kinetics/convert', ['none.csv', '--clips', '.', '--out', '{out}']),
        ('convert_checkpoint', ['none.pth', '{out}']),
        ('evaluate', ['none.pkl', 'none.py', '--json', '{out}']),
        ('benchmark', ['--sweep', '--plot', '{out}']),
    ],
)
@pytest.mark.parametrize(
    ('out', 'words'),
    [
        ('', 'is a folder; give the name of a file.'),
        ('file/a', 'is in the way); choose'),
    ],
)
def test_an_output_that_cannot_be_written_is_told_first(
    tmp_path, monkeypatch, capsys, tool, args, out, words
):
    (tmp_path / 'file').touch()
    args = [arg.format(out=tmp_path / out) for arg in args]
    monkeypatch.setattr(sys, 'argv', [tool, *args])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'), run_name='__main__')
    assert leave.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert words in line
