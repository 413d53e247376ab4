import pytest
from run_tool import run_and_fail


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
def test_an_output_that_cannot_be_written_is_reported_first(
    tmp_path, capsys, tool, args
):
    line = run_and_fail(capsys, tool, *(arg.format(out=tmp_path) for arg in args))
    assert f'{tmp_path} is a folder; give the name of a file.' in line
