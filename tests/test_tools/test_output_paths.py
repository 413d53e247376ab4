import pytest
from run_tool import run_and_fail


@pytest.mark.parametrize(
    ('tool', 'name', 'args'),
    [
        ('evaluate', 'in.py', ['none.csv', '{in}', '--json', '{out}']),
        ('check_dataset', 'in.py', ['{in}', '--json', '{out}']),
        ('analysis/get_flops', 'in.py', ['{in}', '--json', '{out}']),
        ('convert_checkpoint', 'in.pth', ['{in}', '{out}']),
        ('convert_annotations', 'in.csv', ['{in}', '--videos', '.', '--out', '{out}']),
        (
            'convert_annotations',
            'in.csv',
            ['x', '--videos', '.', '--out', '{out}', '--label-map', '{in}'],
        ),
        ('demo', 'in.mp4', ['{in}', 'none.py', 'none.pth', '--out', '{out}']),
    ],
)
def test_an_output_that_is_an_input_is_refused(
    tmp_path, monkeypatch, capsys, tool, name, args
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x').write_text('<annotations><version>1.1</version></annotations>')
    source = tmp_path / name
    source.write_text('')
    args = (arg.format(**{'in': source, 'out': source}) for arg in args)
    line = run_and_fail(capsys, tool, *args)
    assert f'{source} is read, and ' in line and 'would replace it' in line
    assert source.read_text() == ''


def test_a_table_that_nobody_named_replaces_no_other(tmp_path, capsys):
    (tmp_path / 'a.json').write_text('of somebody')
    args = ('none.mp4', 'none.py', 'none.pth', '--out', tmp_path / 'a.mp4')
    assert 'a.json is there already, without' in run_and_fail(capsys, 'demo', *args)
