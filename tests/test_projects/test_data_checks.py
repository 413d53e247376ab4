import json

import numpy as np
import pytest
import tiny_tubes
from mmengine.config import Config
from mmengine.registry import DefaultScope
from run_tool import run_tool
from tiny_tubes import RUN_1, SIT, gttubes, tube

from stmixer_mm.projects.data_checks.datasets import check_config, check_dataset
from stmixer_mm.projects.data_checks.reports import format_report

BOX = '0.1,0.1,0.5,0.9'


@pytest.fixture
def dataset(tmp_path, write_text, write_video):
    """Config of a dataset without a fault: 4 s of video, 10 frames per second."""
    write_video('a.mp4')
    write_text('ann.csv', f'a,1,{BOX},1,0', f'a,1,{BOX},2,0', f'a,2.5,{BOX},2,0')
    write_text('map.pbtxt', *(f'item {{ name: "act {n}" id: {n} }}' for n in (1, 2)))
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


def found(report, severity='error'):
    """(kind, file name, line) of the findings."""
    return [
        (finding.kind, finding.file.rsplit('/')[-1], finding.line)
        for finding in report.findings
        if finding.severity == severity
    ]


def test_a_good_dataset_is_counted(dataset):
    report = check_dataset(dataset, 'train')
    assert report.findings == []
    assert (report.num_videos, report.num_keyframes, report.num_boxes) == (1, 2, 2)
    assert report.class_counts == {'act 1': 1, 'act 2': 2}
    text = format_report(report)
    assert '0 errors, 0 warnings' in text
    assert '1 videos, 2 keyframes (0 person-free), 2 boxes' in text


def test_each_fault_is_named_with_its_line(dataset, tmp_path, write_text, write_video):
    write_video('short.mp4', num_frames=12)
    (tmp_path / 'text.mp4').write_text('no video\n' * 99)
    half = (tmp_path / 'a.mp4').read_bytes()
    (tmp_path / 'half.mp4').write_bytes(half[: len(half) // 2])
    # First those of the lines and where the videos are, then those of the videos.
    lines = ['x', f'z,1,{BOX},1,0', f'a,1,{BOX},9,0']
    write_text('ann.csv', *lines)
    report = check_dataset(dataset, 'train')
    assert found(report) == [(kind, 'ann.csv', line) for kind, line in (
        ('line', 1), ('line', 3), ('missing', 2)
    )]  # fmt: skip
    assert 'ann.csv, line 3: ' in format_report(report)
    moments = ['a,1', 'a,77', 'a,2', 'a,99', 'half,1', 'text,1', 'short,0.5', 'short,1']
    write_text('ann.csv', *(f'{moment},{BOX},1,0' for moment in moments))
    assert found(check_dataset(dataset, 'train')) == [(kind, 'ann.csv', line) for kind, line in (
        ('clip', 2), ('clip', 4), ('unreadable', 5), ('unreadable', 6), ('clip', 7)
    )]  # fmt: skip


@pytest.mark.parametrize('decode', [True, False])
def test_damage_inside_a_video_shows_on_decoding(
    dataset, write_text, write_video, decode
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
    write_text('exclude.csv', 'b,0009')
    dataset['exclude_file'] = 'exclude.csv'
    lines = [f'a,1,{BOX},1,0', f'a,1,{BOX},1,1', f'a,2,{BOX},3,0']
    write_text('ann.csv', *lines)
    report = check_dataset(dataset, 'train')
    assert found(report) == []
    assert found(report, severity='warning') == [
        ('excluded', 'exclude.csv', None),
        ('duplicate', 'ann.csv', 2),
    ]
    assert report.class_counts == {'act 1': 1, 'act 2': 0, 'class 3': 1}


def test_excluded_and_person_free_keyframes(dataset, write_text):
    write_text('exclude.csv', 'a,0001', 'b,0009')
    write_text('empty.csv', 'a,3', 'a,1.5')
    dataset.update(exclude_file='exclude.csv', empty_keyframes_file='empty.csv')
    report = check_dataset(dataset, 'train')
    assert found(report) == []
    assert (report.num_keyframes, report.num_empty_keyframes) == (3, 2)
    write_text('exclude.csv', 'a,0001', 'oops')
    write_text('empty.csv', 'a,3', 'a')
    assert found(check_dataset(dataset, 'train')) == [
        ('line', 'empty.csv', 2),
        ('line', 'exclude.csv', 2),
    ]


def test_extracted_frames(dataset, write_frames):
    dataset.update(use_frames=True, fps=10)
    dataset['pipeline'][0:1] = []
    folder = write_frames('a')
    assert check_dataset(dataset, 'train').findings == []
    (folder / 'img_00026.jpg').write_bytes(b'no picture')  # frame 25 of 0, at 2.5 s
    assert found(check_dataset(dataset, 'train')) == [('unreadable', 'ann.csv', 3)]
    (folder / 'img_00026.jpg').unlink()
    report = check_dataset(dataset, 'train')
    assert found(report) == [('unreadable', 'ann.csv', 1)]
    assert 'lacks 1 of its 40 frames, first img_00026.jpg' in format_report(report)


def test_videos_in_train_and_val(dataset, write_text):
    write_text('val.csv', f'a.mp4,3,{BOX},1,0', f'a.mp4,3,{BOX},2,0')
    val = dict(dataset=dict(dataset, ann_file='val.csv', test_mode=True))
    many = dict(type='ConcatDataset', datasets=[dataset])
    repeated = dict(type='RepeatDataset', times=2, dataset=many)
    train = dict(dataset=repeated)
    cfg = Config(dict(train_dataloader=train, val_dataloader=val, test_dataloader=val))
    trained, evaluated = check_config(cfg)
    assert trained.findings == [] and trained.num_keyframes == 2
    assert found(evaluated, severity='warning') == [('overlap', 'val.csv', 1)]
    (alone,) = check_config(cfg, ['val'])
    assert alone.findings == []


def check_tubes(root, layout, **content):
    config = Config.fromfile(tiny_tubes.write_project(root, layout))
    tiny_tubes.write_truth(root / 'GT.pkl', **content)
    (root / 'trainval' / f'{RUN_1}.mp4').unlink(missing_ok=True)
    with DefaultScope.overwrite_default_scope('mmaction'):
        return check_config(config, ['train', 'test'])


def test_tubes_are_counted(tmp_path):
    train, test = check_tubes(tmp_path, 'ucf101-24')
    # Tenth frames of 20 and 16.
    assert (train.num_videos, train.num_keyframes, train.num_boxes) == (2, 4, 4)
    assert (test.num_keyframes, test.num_empty_keyframes) == (40, 6)
    assert test.class_counts == {'Run': 32, 'Sit': 16}
    assert train.findings == []
    assert [finding.kind for finding in test.findings] == ['overlap']


def test_videos_of_tubes_that_are_missing_or_too_short(tmp_path):
    longer = gttubes(**{SIT: {1: [tube(5, 22, (16, 8, 48, 32))]}})
    nframes = {**tiny_tubes.truth()['nframes'], SIT: 22}
    train, test = check_tubes(tmp_path, 'multisports', nframes=nframes, **longer)
    assert [finding.kind for finding in train.findings] == ['missing']
    # One error for all keyframes: there are no lines.
    kinds = [finding.kind for finding in test.findings]
    assert kinds == ['length', 'clip', 'overlap']


def test_the_tool_prints_and_writes_reports(tmp_path, write_text, write_video, capsys):
    write_video('a.mp4')
    dataset = dict(
        type='KeyframeDataset',
        ann_file=str(tmp_path / 'ann.csv'),
        data_prefix=dict(img=str(tmp_path)),
        num_classes=3,
        pipeline=[],
    )
    config = write_text('config.py', f'train_dataloader = dict(dataset={dataset})')
    path, good = tmp_path / 'report.json', 'a,1,0,0,1,1,1,0'
    for lines, code, sentence in (
        ([good], 0, '1 videos, 1 keyframes'),
        ([good, 'a,1,0,0,2,2,1,0'], 1, 'the box is 0, 0, 2, 2'),
    ):
        write_text('ann.csv', *lines)
        with pytest.raises(SystemExit) as leave:
            run_tool('check_dataset', config, '--json', path)
        assert leave.value.code == code
        assert sentence in capsys.readouterr().out
        assert [report['num_errors'] for report in json.loads(path.read_text())] == [
            code
        ]
