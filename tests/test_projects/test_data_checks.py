import json

import numpy as np
import pytest
from mmengine.config import Config
from run_tool import run_tool

from stmixer_mm.projects.data_checks.datasets import check_config, check_dataset
from stmixer_mm.projects.data_checks.reports import format_report

BOX = '0.1,0.1,0.5,0.9'


@pytest.fixture
def dataset(tmp_path, write_text, write_video):
    """Config of a dataset without a fault: 4 s of video, 10 frames per second."""
    write_video('a.mp4')
    write_text('ann.csv', f'a,1,{BOX},1,0', f'a,1,{BOX},2,0', f'a,2.5,{BOX},2,0')
    items = [('sit', 1), ('run', 2)]
    write_text(
        'map.pbtxt',
        *(
            line
            for name, number in items
            for line in ('item {', f'  name: "{name}"', f'  id: {number}', '}')
        ),
    )
    return dict(
        type='KeyframeDataset',
        ann_file='ann.csv',
        label_file='map.pbtxt',
        data_root=str(tmp_path),
        num_classes=3,
        pipeline=[
            dict(type='OpenVideo'),
            dict(type='SampleKeyframeClip', clip_len=4, frame_interval=4),
            dict(type='DecodeFrames'),
        ],
    )


def found(report, is_error=True):
    """(kind, file name, line) of the findings."""
    return [
        (finding.kind, finding.file.rsplit('/')[-1], finding.line)
        for finding in report.findings
        if finding.is_error == is_error
    ]


def test_a_good_dataset_is_counted(dataset):
    report = check_dataset(dataset, 'train')
    assert report.findings == []
    assert (report.num_videos, report.num_keyframes, report.num_boxes) == (1, 2, 2)
    assert report.class_counts == {'sit': 1, 'run': 2}
    text = format_report(report)
    assert '0 errors, 0 warnings' in text
    assert '1 videos, 2 keyframes (0 person-free), 2 boxes' in text


@pytest.mark.parametrize(
    'line, kind',
    [
        ('a,1,0.1,0.1,0.5', 'line'),
        (f'z,1,{BOX},1,0', 'missing'),
        (f'a,902,{BOX},1,0', 'clip'),
        (f'empty,1,{BOX},1,0', 'unreadable'),
        (f'half,1,{BOX},1,0', 'unreadable'),
        (f'text,1,{BOX},1,0', 'unreadable'),
        (f'short,0.5,{BOX},1,0', 'clip'),
    ],
)
def test_each_fault_is_named_with_its_line(dataset, tmp_path, write_video, line, kind):
    write_video('short.mp4', num_frames=12)
    (tmp_path / 'empty.mp4').touch()
    (tmp_path / 'text.mp4').write_text('no video\n' * 99)
    half = (tmp_path / 'a.mp4').read_bytes()
    (tmp_path / 'half.mp4').write_bytes(half[: len(half) // 2])
    with open(tmp_path / 'ann.csv', 'a') as file:
        file.write(f'{line}\n')
    report = check_dataset(dataset, 'train')
    assert found(report) == [(kind, 'ann.csv', 4)]
    assert 'ann.csv, line 4: ' in format_report(report)


def test_all_faults_are_found(dataset, write_text):
    """First those of the lines, then those of the videos."""
    lines = ['x', f'z,1,{BOX},1,0', f'a,1,{BOX},9,0']
    write_text('ann.csv', *lines, *lines)
    assert found(check_dataset(dataset, 'train')) == [
        ('line', 'ann.csv', 1),
        ('line', 'ann.csv', 3),
        ('line', 'ann.csv', 4),
        ('line', 'ann.csv', 6),
        ('missing', 'ann.csv', 2),
    ]
    write_text('ann.csv', *(f'a,{second},{BOX},1,0' for second in (1, 77, 2, 99)))
    assert found(check_dataset(dataset, 'train')) == [
        ('clip', 'ann.csv', 2),
        ('clip', 'ann.csv', 4),
    ]


@pytest.mark.parametrize('decode', [True, False])
def test_damage_inside_a_video_shows_on_decoding(
    dataset, tmp_path, write_text, write_video, decode
):
    path = write_video('a.mp4', size=(320, 240))
    data = bytearray(path.read_bytes())
    begin, end = data.index(b'mdat') + 8, data.rindex(b'moov') - 4
    # The pictures of 12 frames hang together; those before and after stay good.
    first, last = begin + (end - begin) * 4 // 10, begin + (end - begin) * 5 // 10
    data[first:last] = np.random.RandomState(0).bytes(last - first)
    path.write_bytes(data)
    write_text('ann.csv', *(f'a,{t},{BOX},{1 + t % 2},0' for t in (0, 2, 4)))
    report = check_dataset(dataset, 'train', decode=decode)
    assert found(report) == ([('unreadable', 'ann.csv', 2)] if decode else [])


def test_suspicious_lines_are_warnings(dataset, write_text):
    dataset['num_classes'] = 4
    lines = [f'a,1,{BOX},1,0', f'a,1,{BOX},1,1', 'a,2,0.1,0.1,0.105,0.9,1,0']
    write_text('ann.csv', *lines, f'a,1,{BOX},3,0', f'a,2,{BOX},3,0')
    report = check_dataset(dataset, 'train')
    assert found(report) == []
    assert found(report, is_error=False) == [
        ('duplicate', 'ann.csv', 2),
        ('absent class', 'ann.csv', None),
    ]
    assert report.class_counts == {'sit': 2, 'run': 0, 'class 3': 2}


def test_excluded_and_person_free_keyframes(dataset, write_text):
    write_text('exclude.csv', 'a,0001', 'b,0009')
    write_text('empty.csv', 'a,3', 'a,1.5')
    dataset.update(exclude_file='exclude.csv', empty_keyframes_file='empty.csv')
    report = check_dataset(dataset, 'train')
    assert found(report) == []
    assert report.num_excluded_keyframes == 1
    assert (report.num_keyframes, report.num_empty_keyframes) == (3, 2)
    write_text('exclude.csv', 'a,0001', 'oops')
    write_text('empty.csv', 'a,3', 'a,2.5')
    assert found(check_dataset(dataset, 'train')) == [
        ('line', 'empty.csv', 2),
        ('line', 'exclude.csv', 2),
    ]
    write_text('exclude.csv')
    write_text('empty.csv', 'a,3', 'a,99')
    assert found(check_dataset(dataset, 'train')) == [('clip', 'empty.csv', 2)]


def test_extracted_frames(dataset, tmp_path, write_frames):
    dataset.update(use_frames=True, fps=10)
    dataset['pipeline'][0:1] = []
    dataset['pipeline'][1] = dict(type='RawFrameDecode')
    folder = write_frames('a')
    assert check_dataset(dataset, 'train').findings == []
    (folder / 'img_00026.jpg').write_bytes(b'no picture')  # frame 25 of 0, at 2.5 s
    assert found(check_dataset(dataset, 'train')) == [('unreadable', 'ann.csv', 3)]
    (folder / 'img_00026.jpg').unlink()
    report = check_dataset(dataset, 'train')
    assert found(report) == [('unreadable', 'ann.csv', 1)]
    assert 'lacks 1 of its 40 frames, first img_00026.jpg' in format_report(report)


@pytest.mark.parametrize('allow', [False, True])
def test_videos_in_train_and_val(dataset, write_text, allow):
    write_text('val.csv', f'a.mp4,3,{BOX},1,0', f'a.mp4,3,{BOX},2,0')
    val = dict(dataset=dict(dataset, ann_file='val.csv', test_mode=True))
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=dataset),
            val_dataloader=val,
            test_dataloader=val,
        )
    )
    train, evaluated = check_config(cfg, allow_overlap=allow)
    assert train.findings == []
    assert found(evaluated, is_error=not allow) == [('overlap', 'val.csv', 1)]
    (alone,) = check_config(cfg, ['val'])
    assert alone.findings == []


def test_wrapped_datasets_are_checked_one_by_one(dataset, write_text):
    write_text('more.csv', f'a,3,{BOX},1,0')
    both = [dataset, dict(dataset, ann_file='more.csv')]
    wrapped = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=both)
    )
    reports = check_config(Config(dict(train_dataloader=dict(dataset=wrapped))))
    assert [report.num_keyframes for report in reports] == [2, 1]


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
    assert "ann.csv, line 2: 'a,1,0,0,2,2,1,0' is not" in out
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
