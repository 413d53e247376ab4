import json

import pytest
from run_tool import run_tool


@pytest.fixture
def run(tmp_path, write_text, write_video, capsys):
    """Run the tool on a config whose annotation has the given lines."""
    write_video('a.mp4')

    def run(*lines, options=(), more=''):
        dataset = dict(
            type='KeyframeDataset',
            ann_file=write_text('ann.csv', *lines),
            data_prefix=dict(img=str(tmp_path)),
            num_classes=3,
            pipeline=[],
        )
        train = f'train_dataloader = dict(dataset={dataset})'
        config = write_text('config.py', train, more)
        with pytest.raises(SystemExit) as exit_:
            run_tool('check_dataset', config, *options)
        return int(exit_.value.code), *capsys.readouterr()

    return run


def test_exit_code_report_and_json(run, tmp_path):
    report = tmp_path / 'report.json'
    good = 'a,1,0,0,1,1,1,0'
    code, out, _ = run(good, options=['--json', str(report)])
    assert code == 0
    assert '1 videos, 1 keyframes' in out
    code, out, _ = run(good, 'a,1,0,0,2,2,1,0', options=['--json', str(report)])
    assert code == 1
    assert 'ann.csv, line 2: ' in out
    assert 'the box is 0, 0, 2, 2' in out
    assert 'Videos are opened once these errors are corrected.' in out
    (train,) = json.loads(report.read_text())
    assert train['num_errors'] == 1
    assert not list(tmp_path.glob('*.tmp'))


def test_evaluators_are_checked_too(run, write_text):
    other = write_text('other.csv', 'b,1,0,0,1,1,1,0')
    metric = f"dict(type='FrameMAPMetric', ann_file={other!r}, num_classes=3)"
    more = f'val_dataloader = train_dataloader\nval_evaluator = {metric}'
    code, out, _ = run('a,1,0,0,1,1,1,0', more=more, options=['--allow-overlap'])
    assert code == 1
    assert '== val_evaluator: ' in out
    assert 'other.csv: 1 of its 1 keyframes' in out


@pytest.mark.parametrize(
    'options, words',
    [
        (['--split', 'val'], 'no dataset in val_dataloader'),
        (['--json', '/dev/null/report.json'], 'folder of --json /dev/null cannot be'),
        (['--json', '/dev'], '--json /dev is a folder; give the name of a file'),
    ],
)
def test_faulty_calls_end_in_one_line(run, options, words):
    code, _, err = run('a,1,0,0,1,1,1,0', options=options)
    assert code == 1
    assert err.startswith('error: ')
    assert words in err
    assert err.count('\n') == 1
