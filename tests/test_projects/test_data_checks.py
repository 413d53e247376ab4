import json
from collections import OrderedDict
from pathlib import Path

import pytest
import tiny_tubes
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from run_tool import run_tool
from tiny_stmixer import write_project
from tiny_tubes import RUN_1, SIT, gttubes, tube

from stmixer_mm.apis.config import load_config
from stmixer_mm.engine.hooks import SafeCheckpointHook
from stmixer_mm.projects.data_checks.datasets import check_config, check_dataset
from stmixer_mm.projects.data_checks.dry_run import dry_run
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


def faults(report, severity='error'):
    """Kind, file name and line of each finding."""
    return [
        f'{finding.kind} {Path(finding.file).name}:{finding.line}'
        for finding in report.findings
        if finding.severity == severity
    ]


def test_a_good_dataset_is_counted(dataset, write_text):
    write_text('exclude.csv', 'a,0001', 'b,0009')
    write_text('empty.csv', 'a,3', 'a,1.5')
    files = dict(exclude_file='exclude.csv', empty_keyframes_file='empty.csv')
    for options, counts in (({}, (1, 2, 0, 2)), (files, (1, 3, 2, 1))):
        report = check_dataset(dataset | options, 'train')
        assert report.findings == []
        numbers = report.num_keyframes, report.num_empty_keyframes, report.num_boxes
        assert (report.num_videos, *numbers) == counts
    assert report.class_counts == {'act 1': 0, 'act 2': 1}


def test_each_fault_is_named_with_its_line(dataset, tmp_path, write_text, write_video):
    write_video('short.mp4', num_frames=12)
    (tmp_path / 'text.mp4').write_text('no video\n' * 99)
    half = (tmp_path / 'a.mp4').read_bytes()
    (tmp_path / 'half.mp4').write_bytes(half[: len(half) // 2])
    # First those of the lines and where the videos are, then those of the videos.
    rows = [f'{moment},{BOX},1,0' for moment in ('z,1', 'a,2', 'text,1')]
    write_text('ann.csv', 'x', *rows, f'a,1,{BOX},9,0')
    write_text('exclude.csv', 'a,0001', 'oops')
    report = check_dataset(dataset | dict(exclude_file='exclude.csv'), 'train')
    expected = ['line ann.csv:1', 'line ann.csv:5', 'line exclude.csv:2']
    assert faults(report) == [*expected, 'missing ann.csv:2', 'unreadable ann.csv:4']
    assert 'ann.csv, line 5: ' in format_report(report)
    moments = ['a,1', 'a,77', 'a,2', 'a,99', 'half,1', 'text,1', 'short,0.5', 'short,1']
    write_text('ann.csv', *(f'{moment},{BOX},1,0' for moment in moments))
    kinds = {2: 'clip', 4: 'clip', 5: 'unreadable', 6: 'unreadable', 7: 'clip'}
    expected = [f'{kind} ann.csv:{line}' for line, kind in kinds.items()]
    assert faults(check_dataset(dataset, 'train')) == expected


def test_suspicious_lines_are_warnings(dataset, write_text):
    write_text('exclude.csv', 'b,0009')
    write_text('ann.csv', f'a,1,{BOX},1,0', f'a,1,{BOX},1,1', f'a,2,{BOX},3,0')
    dataset |= dict(num_classes=4, exclude_file='exclude.csv')
    report = check_dataset(dataset, 'train')
    assert faults(report) == []
    warnings = ['excluded exclude.csv:None', 'duplicate ann.csv:2']
    assert faults(report, 'warning') == warnings
    assert report.class_counts == {'act 1': 1, 'act 2': 0, 'class 3': 1}


def test_extracted_frames(dataset, write_frames):
    dataset |= dict(use_frames=True, fps=10, pipeline=dataset['pipeline'][1:])
    folder = write_frames('a')
    assert check_dataset(dataset, 'train').findings == []
    keyframe, other = folder / 'img_00026.jpg', folder / 'img_00022.jpg'  # of one clip
    picture = keyframe.read_bytes()
    for bad_files in [keyframe], [keyframe, other], [other]:
        for file in keyframe, other:
            file.write_bytes(b'no picture' if file in bad_files else picture)
        assert faults(check_dataset(dataset, 'train')) == ['unreadable ann.csv:3']
        assert check_dataset(dataset, 'train', decode=False).findings == []
    keyframe.unlink()
    report = check_dataset(dataset, 'train', decode=False)
    assert faults(report) == ['unreadable ann.csv:1']
    assert 'lacks 1 of its 40 frames, first img_00026.jpg' in format_report(report)


def test_videos_in_train_and_val(dataset, write_text):
    write_text('val.csv', f'a.mp4,3,{BOX},1,0', f'a.mp4,3,{BOX},2,0')
    val = dict(dataset=dict(dataset, ann_file='val.csv', test_mode=True))
    many = dict(type='ConcatDataset', datasets=[dataset])
    train = dict(dataset=dict(type='RepeatDataset', times=2, dataset=many))
    cfg = Config(dict(train_dataloader=train, val_dataloader=val, test_dataloader=val))
    trained, evaluated = check_config(cfg)
    assert trained.findings == [] and trained.num_keyframes == 2
    assert faults(evaluated, 'warning') == ['overlap val.csv:1']
    assert check_config(cfg, ['val'])[0].findings == []
    for number, expected in ((3, []), (4, ['classes val.csv:None'])):
        cfg.model = dict(type='STMixer', head=dict(num_classes=number))
        assert faults(check_config(cfg, ['val'])[0]) == expected


def test_tubes(tmp_path):
    config = tiny_tubes.tube_config(tmp_path, 'multisports')

    def check():
        reports = check_config(config, ['train', 'test'])
        return reports, [[f.kind for f in report.findings] for report in reports]

    (train, test), kinds = check()
    assert kinds == [[], ['overlap']]
    # Tenth frames of 20 and 16.
    assert (train.num_videos, train.num_keyframes, train.num_boxes) == (2, 4, 4)
    assert (test.num_keyframes, test.num_empty_keyframes) == (40, 6)
    assert test.class_counts == {'Run': 32, 'Sit': 16}
    # One video is missing, another shorter than its annotation.
    (tmp_path / 'trainval' / f'{RUN_1}.mp4').unlink()
    longer = gttubes(**{SIT: {1: [tube(5, 22, (16, 8, 48, 32))]}})
    nframes = {**tiny_tubes.truth()['nframes'], SIT: 22}
    tiny_tubes.write_truth(tmp_path / 'GT.pkl', nframes=nframes, **longer)
    # One error for all keyframes: there are no lines.
    assert check()[1] == [['missing', 'length'], ['length', 'clip', 'overlap']]


def test_the_tool_prints_and_writes_reports(dataset, tmp_path, write_text, capsys):
    config = write_text('config.py', f'train_dataloader = dict(dataset={dataset})')
    path = tmp_path / 'report.json'
    for code, text in enumerate(('keyframes: 2', 'the box is 0, 0, 2, 2')):
        with pytest.raises(SystemExit) as leave:
            run_tool('check_dataset', config, '--json', path)
        assert leave.value.code == code
        assert text in capsys.readouterr().out
        (report,) = json.loads(path.read_text())
        assert report['num_errors'] == code
        write_text('ann.csv', 'a,1,0,0,2,2,1,0')


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'train_cfg.max_epochs': 20, 'train_cfg.val_begin': 5, 'resume': True},
        {
            'train_cfg': dict(type='IterBasedTrainLoop', _delete_=True, max_iters=100),
            'train_dataloader.sampler': dict(type='InfiniteSampler', _delete_=True),
        },
    ],
    ids=['epochs', 'later validation', 'iterations'],
)
def test_a_dry_run_saves_and_validates_once(tmp_path, monkeypatch, settings):
    """A good config passes, whatever its loop, and its folder stays as it was."""
    cfg = load_config(write_project(tmp_path), settings)
    saved, validated = [], []
    monkeypatch.setattr(
        SafeCheckpointHook,
        'after_val_epoch',
        lambda self, runner, metrics: validated.append(runner.val_dataloader),
    )
    monkeypatch.setattr(Runner, 'save_checkpoint', lambda *_, **__: saved.append(1))
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    paths = sorted(tmp_path.rglob('*'))
    dry_run(cfg)
    assert len(saved) == len(validated) == 1
    assert len(validated[0]) == 2
    assert sorted(tmp_path.rglob('*')) == paths
