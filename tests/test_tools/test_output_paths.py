import pytest
from run_tool import run_and_fail


@pytest.mark.parametrize(
    ('tool', 'name', 'args'),
    [
        ('evaluate', 'in.py', ['none.csv', '{in}', '--json', '{in}']),
        ('check_dataset', 'in.py', ['{in}', '--json', '{in}']),
        ('convert_checkpoint', 'in.pth', ['{in}', '{in}']),
        ('convert_annotations', 'in.csv', ['{in}', '--videos', '.', '--out', '{in}']),
        ('demo', 'in.mp4', ['{in}', 'none.py', 'none.pth', '--out', '{in}']),
    ],
)
def test_an_output_that_is_an_input_is_refused(tmp_path, capsys, tool, name, args):
    source = tmp_path / name
    source.write_text('mine')
    line = run_and_fail(capsys, tool, *(arg.format(**{'in': source}) for arg in args))
    assert 'would replace it' in line
    assert source.read_text() == 'mine'
