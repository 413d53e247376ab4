"""Every broken annotation, at every place that reads it, ends in one sentence."""

import bz2
import errno
import gzip
import os
import pickle
import re
import runpy
import sys

import numpy as np
import pytest
import tiny_tubes
from tiny_stmixer import ROOT, write_project

from stmixer_mm.checks.datasets import check_dataset
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.tube_dataset import TubeDataset
from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric, VideoMAPMetric

GOOD = 'a,1,0.1,0.1,0.5,0.9,1,0'
OTHER = 'b,1.5,0.1,0.1,0.5,0.9,2,1'
TEXT = f'{GOOD}\n{OTHER}\n'
FOUR = '0.1,0.1,0.5,0.9'


def bytes_of(*lines):
    return '\n'.join(lines).encode()


@pytest.fixture
def dataset(tmp_path):
    """Config of two keyframes of two videos (empty files)."""
    for name in 'ab':
        (tmp_path / f'{name}.mp4').touch()
    (tmp_path / 'ann.csv').write_text(TEXT)
    return dict(
        ann_file='ann.csv',
        data_root=str(tmp_path),
        data_prefix=dict(img=str(tmp_path)),
        num_classes=3,
        pipeline=[],
    )


def is_sentence(text):
    return text.endswith('.') and '\n' not in text and '; ' in text


def told(dataset, kind='KeyframeDataset'):
    """The errors that the check finds, without those of the videos."""
    report = check_dataset(dict(type=kind, **dataset), 'train', decode=False)
    return [
        str(finding).removeprefix('error: ')
        for finding in report.findings
        if finding.is_error and finding.kind != 'unreadable'
    ]


@pytest.mark.parametrize(
    ('content', 'line', 'words'),
    [
        *(
            (line.encode(), 1, f'{re.escape(repr(line))} is not .*{reason}.*; correct')
            for line, reason in (
                ('a,1', '2 columns'),
                (f'{GOOD},7', '9 columns'),
                (GOOD.replace(',', ';'), '1 columns'),
                (GOOD.replace(',', '\t'), '1 columns'),
                ('video_id,timestamp,x1,y1,x2,y2,action_id,person_id', "'action_id'"),
                ('"a","1","0","0","1","1","1","0"', r"'\"1\"'"),
                (f'"a",1,{FOUR},1,0', r"the video_id is '\"a\"'"),
                (f',1,{FOUR},1,0', "the video_id is ''"),
                (f'a,1_0,{FOUR},1,0', "'1_0' is not a number"),
                (f'a,00:01,{FOUR},1,0', "'00:01'"),
                (f'a,nan,{FOUR},1,0', 'the timestamp is nan'),
                (f'a,1e400,{FOUR},1,0', 'the timestamp is inf'),
                ('a,1,,,,,,', "''"),
                ('a,1,0,0,1_0,1,1,0', "'1_0' is not a number"),
                ('a,1,0,x,1,1,1,0', "'x'"),
                ('a,1,0,nan,1,1,1,0', 'the box is 0, nan, 1, 1'),
                ('a,1,0,0,inf,1,1,0', 'the box is 0, 0, inf, 1'),
                ('a,1,9,9,40,60,1,0', 'the box is 9, 9, 40, 60'),
                ('a,1,0.5,0,0.1,1,1,0', 'the box is 0.5, 0, 0.1, 1'),
                (f'a,1,{FOUR},0_1,0', "'0_1' is not a number"),
                (f'a,1,{FOUR},٣,0', "'٣' is not a number"),
                (f'a,1,{FOUR},0,0', 'the action id 0 is not between 0 and'),
                (f'a,1,{FOUR},-1,0', 'the action id -1 is not'),
                (f'a,1,{FOUR},3,0', 'the action id 3 is not .* num_classes=3'),
                (f'a,1,{FOUR},1.0,0', "'1.0'"),
                (f'a,1,{FOUR},1,1.5', "'1.5'"),
                (f'a,1,{FOUR},1,{10**20}', 'an id has more than 64 bits'),
            )
        ),
        (TEXT.encode('utf-16'), 1, 'not UTF-8 text; unpack it, or save it as UTF-8'),
        (TEXT.encode('utf-16-le'), 1, r"'a\\x00,.* is not video_id"),
        ((TEXT + 'é').encode('latin-1'), 3, 'not UTF-8 text; unpack'),
        (pickle.dumps([1]), 1, 'not UTF-8 text; unpack'),
        (bz2.compress(TEXT.encode()), 1, 'not UTF-8 text; unpack'),
        (b'\n \n', None, 'the file has no annotation; write lines of video_id'),
        (f'{GOOD}\nx\ny'.encode(), 2, r'remove it \(1 more: run tools/check'),
    ],
)
def test_an_annotation_file(dataset, tmp_path, content, line, words):
    path = tmp_path / 'ann.csv'
    path.write_bytes(content)
    place = str(path) if line is None else f'{path}, line {line}'
    with pytest.raises(ValueError, match=f'^{place}: .*{words}') as of_dataset:
        KeyframeDataset(**dataset)
    with pytest.raises(ValueError, match=f'^{place}: .*{words}') as of_metric:
        FrameMAPMetric(str(path), num_classes=3)
    assert str(of_dataset.value) == str(of_metric.value)
    assert is_sentence(str(of_metric.value))
    first = told(dataset)[0]
    assert is_sentence(first)
    assert str(of_metric.value).startswith(first[:-1])


@pytest.mark.parametrize(
    'content',
    [
        TEXT.replace('\n', '\r\n').encode(),
        TEXT.replace('\n', '\r').encode(),
        b'\xef\xbb\xbf' + TEXT.encode(),
        TEXT.replace(',', ' , ').encode(),
        bytes_of('', OTHER, '  ', GOOD),
        TEXT.replace('a,1,', 'a,0001.0,').encode(),
        TEXT.replace('0.9', '0.9000').encode(),
    ],
    ids=['windows', 'mac', 'mark', 'spaces', 'order', 'number', 'digits'],
)
def test_what_is_accepted_changes_nothing(dataset, tmp_path, content):
    def persons():
        samples = {sample['img_key']: sample for sample in KeyframeDataset(**dataset)}
        return [
            (
                key,
                samples[key]['gt_bboxes'].tolist(),
                samples[key]['gt_labels'].tolist(),
            )
            for key in sorted(samples)
        ]

    expected = persons()
    (tmp_path / 'ann.csv').write_bytes(content)
    assert persons() == expected
    assert told(dataset) == []


@pytest.mark.parametrize('name', ['exclude_file', 'empty_keyframes_file'])
@pytest.mark.parametrize(
    ('content', 'line', 'words'),
    [
        (b'a,2\na,-2', 2, "'a,-2' is not .*timestamp is -2.*; correct or remove it"),
        (b'a,nan', 1, "'a,nan' is not .*timestamp is nan"),
        (b'a,2,3', 1, "'a,2,3' is not .*3 columns"),
        (b'video_id,timestamp\na,2', 1, "is not .*'timestamp'"),
        (b'"a",2', 1, 'is not .* without quotes'),
        (b'a;2', 1, "'a;2' is not .*1 columns"),
        ('a,2'.encode('utf-16'), 1, 'not UTF-8 text; unpack it, or save'),
    ],
)
def test_files_of_keyframes(dataset, tmp_path, name, content, line, words):
    path = tmp_path / 'some.csv'
    path.write_bytes(content)
    dataset[name] = 'some.csv'
    with pytest.raises(ValueError, match=f'^{path}, line {line}: .*{words}') as error:
        KeyframeDataset(**dataset)
    with pytest.raises(ValueError, match=f'^{path}, line {line}: .*{words}'):
        FrameMAPMetric(str(tmp_path / 'ann.csv'), num_classes=3, **{name: str(path)})
    assert is_sentence(str(error.value))
    assert told(dataset) == [str(error.value)]


@pytest.mark.parametrize(
    'tmpl', ['img.jpg', 'img_%05d.jpg', 'img_{name}.jpg', '{}_{}.jpg', '{:05.jpg']
)
def test_names_of_frames_without_a_number(dataset, tmpl):
    words = 'does not say where the number of a frame stands; write it once, as in '
    with pytest.raises(ValueError, match=words) as error:
        KeyframeDataset(**dataset, filename_tmpl=tmpl)
    assert is_sentence(str(error.value))
    assert told({**dataset, 'filename_tmpl': tmpl})[0].endswith(str(error.value))
    with pytest.raises(ValueError, match=words):
        TubeDataset('GT.pkl', [], filename_tmpl=tmpl)


@pytest.mark.parametrize('fps', [0, -5, float('nan'), float('inf')])
def test_a_frame_rate_that_is_none(dataset, fps):
    with pytest.raises(ValueError, match=f'^fps={fps:g} is not a frame rate; give'):
        KeyframeDataset(**dataset, fps=fps)


def test_an_exclude_file_of_another_split(dataset, tmp_path):
    dataset['exclude_file'] = 'exclude.csv'
    (tmp_path / 'exclude.csv').write_text('a,1\nb,1.5\n')
    with pytest.raises(
        ValueError, match=r'exclude.csv excludes all 2 keyframes of .*;'
    ):
        KeyframeDataset(**dataset)
    (error,) = told(dataset)
    assert 'exclude.csv: excludes all 2 keyframes' in error
    # Keyframes that the annotation lacks are no fault, but none of them looks wrong.
    (tmp_path / 'exclude.csv').write_text('z,1\n')
    report = check_dataset(dict(type='KeyframeDataset', **dataset), 'train')
    assert len(KeyframeDataset(**dataset)) == 2
    assert [f.kind for f in report.findings if not f.is_error][-1] == 'excluded'


class Evil:
    def __reduce__(self):
        return os.mkdir, ('made_by_a_pickle',)


def test_files_and_folders_that_are_closed(dataset, tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def reasons():
        report = check_dataset(dict(type='KeyframeDataset', **dataset), 'train')
        return {finding.kind: str(finding) for finding in report.findings}

    with monkeypatch.context() as patch:
        patch.setattr('stmixer_mm.files.open', refuse, raising=False)
        assert (
            'the file cannot be read (Permission denied); make'
            in reasons()['annotation']
        )
        patch.setattr(
            'stmixer_mm.datasets.annotations.ava_csv.check_file', lambda path: None
        )
        assert '.mp4 cannot be read (Permission denied)' in reasons()['unreadable']
    monkeypatch.setattr('os.access', lambda path, mode: False)
    dataset['data_prefix'] = dict(img=str(tmp_path / 'train'))
    assert f'{tmp_path / "train"}, which is not a folder; put' in reasons()['missing']
    (tmp_path / 'train').mkdir()
    with pytest.raises(ValueError, match=r'train, which may not be entered \(a'):
        KeyframeDataset(**dataset)


def tubes(*rows):
    name = 'Run/v_Run_g02_c01'
    truth = tiny_tubes.truth()
    return {**truth, 'gttubes': {**truth['gttubes'], name: {0: [np.array(rows)]}}}


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (
            pickle.dumps(tubes([2, 9, 4, 4, 9])),
            r'row \[2.0, 9.0, 4.0, 4.0, 9.0\]\); correct it or',
        ),
        (pickle.dumps(tiny_tubes.truth(labels=Evil())), 'asks for .*mkdir, which'),
        (b'version https://git-lfs', 'cannot be read as a pickle .*; correct it or'),
        (gzip.compress(b'', mtime=0), 'cannot be read as a pickle .*; correct it or'),
    ],
)
def test_tubes(tmp_path, content, words):
    path = tmp_path / 'GT.pkl'
    path.write_bytes(content)
    config = dict(ann_file=str(path), pipeline=[], test_mode=True)
    for read in (
        lambda: TubeDataset(**config),
        lambda: TubeFrameMAPMetric(str(path)),
        lambda: VideoMAPMetric(str(path)),
    ):
        with pytest.raises(ValueError, match=f'^{path}.*{words}') as error:
            read()
        assert is_sentence(str(error.value))
    (message,) = told(config, 'TubeDataset')
    assert message.startswith(f'{path}: ') and is_sentence(message)


@pytest.mark.parametrize('tool', ['browse_dataset', 'evaluate', 'analyze_results'])
@pytest.mark.parametrize('file', ['train.csv', 'actions.pbtxt'])
def test_the_tools_end_in_the_same_sentence(tmp_path, monkeypatch, capsys, tool, file):
    config = write_project(tmp_path)
    (tmp_path / file).write_text('x\n')
    found = tmp_path / 'found.csv'
    found.write_text('0.mp4,1,0,0,1,1,1,1\n')
    args = [config] if tool == 'browse_dataset' else [found, config]
    args += ['--out', tmp_path / 'out'] * (tool != 'evaluate')
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'), run_name='__main__')
    assert leave.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: {tmp_path / file}, line 1: ')
    assert is_sentence(line)
