import errno
import gzip
import json
import os
import pickle
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmaction.evaluation.functional import multisports_utils
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from tiny_stmixer import ROOT

from stmixer_mm.evaluation.results.dumps import DumpPredictions
from stmixer_mm.evaluation.results.offline import evaluate_results, read_results
from stmixer_mm.registry import METRICS

TRUTH = ('a,1,0,0,0.4,1,1,0', 'a,1,0.6,0,1,1,2,1', 'b,0002.5,0,0,0.4,1,1,0')
PERFECT = ('a,1,0,0,0.4,1,1,0.9', 'a,1,0.6,0,1,1,2,0.9', 'b,2.5,0,0,0.4,1,1,0.9')


def run_tool(name, *args):
    path = ROOT / 'tools' / f'{name}.py'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(path), *map(str, args)])
        patch.setenv('LOCAL_RANK', '0')
        runpy.run_path(str(path), run_name='__main__')


@pytest.fixture
def config(write_text):
    metric = dict(
        type='FrameMAPMetric', ann_file=write_text('truth.csv', *TRUTH), num_classes=3
    )
    return write_text('config.py', f'test_evaluator = {metric}')


@pytest.fixture
def evaluate(config, tmp_path, capsys):
    """Values and notes of a result file, or of the bytes of a csv."""

    def evaluate(results, *options, config=config):
        if isinstance(results, bytes):
            path = tmp_path / 'found.csv'
            path.write_bytes(results)
            results = path
        report = tmp_path / 'values.json'
        run_tool('evaluate', results, config, '--json', report, *options)
        return json.loads(report.read_text()), capsys.readouterr().err

    return evaluate


@pytest.fixture
def fail(evaluate, capsys):
    """The one sentence that the tool ends in."""

    def fail(*args, **kwargs):
        with pytest.raises(SystemExit) as leave:
            evaluate(*args, **kwargs)
        assert leave.value.code == 1
        errors = capsys.readouterr().err.splitlines()
        (line,) = [line for line in errors if line.startswith('error: ')]
        return line

    return fail


def lines(*rows):
    return '\n'.join(rows).encode()


def read_dump(path):
    return [sample for _, sample in read_results(path).samples(None)]


@pytest.fixture
def tested(config, tmp_path):
    """Dump and values of an evaluator as in a run of tools/test.py."""
    random = np.random.RandomState(0)
    metrics = [
        METRICS.build(Config.fromfile(config).test_evaluator),
        DumpPredictions(str(tmp_path / 'found.pkl')),
    ]
    boxes = [[0, 0, 0.4, 1], [0.1, 0, 0.5, 1], [0.6, 0.1, 1, 1]]
    samples = [
        sample(
            video_id=video,
            timestamp=timestamp,
            instances=dict(
                bboxes=torch.tensor(boxes),
                scores=torch.from_numpy(random.rand(3, 3).astype(np.float32)),
            ),
        )
        for video, timestamp in (('a', 1), ('b', 2.5), ('a', 9))
    ]
    evaluator = Evaluator(metrics)
    evaluator.process(samples)
    return tmp_path / 'found.pkl', evaluator.evaluate(len(samples)), samples


def test_same_digits_as_in_a_run_from_dump_and_csv(tested, evaluate):
    dump, expected, samples = tested
    values, notes = evaluate(dump)
    assert values == expected
    assert 0 < values['mAP/overall'] < 1
    assert 'a,0009 is not in the ground truth' in notes

    rows = []
    for one in samples:
        found = one['pred_instances']
        for box, scores in zip(found['bboxes'], found['scores'], strict=True):
            corners = ','.join(repr(float(value)) for value in box)
            rows += [
                f'{one["video_id"]},{one["timestamp"]},{corners},{action},'
                f'{float(scores[action])!r}'
                for action in (1, 2)
            ]
    assert evaluate(lines(*rows))[0] == values


def test_a_dump_is_read_as_it_was_written(tested):
    dump, _, samples = tested
    for read, expected in zip(read_dump(dump), samples, strict=True):
        assert read['video_id'] == expected['video_id']
        for name, value in expected['pred_instances'].items():
            assert np.array_equal(read['pred_instances'][name], value)
            assert read['pred_instances'][name].dtype == value.numpy().dtype


def test_tensors_of_any_kind_and_arrays_are_read(tmp_path):
    matrix = torch.arange(12.0).reshape(3, 4)
    samples = [
        dict(
            sliced=matrix[1:, 1:3].T,
            half=matrix.to(torch.bfloat16),
            count=torch.tensor(3),
            empty=torch.zeros(0, 4),
            array=np.arange(3),
            scalar=np.float32(0.5),
            pair=(1, 'x'),
        )
    ]
    path = tmp_path / 'found.pkl'
    for protocol in (2, 4, 5):
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            path.write_bytes(pickle.dumps(samples, protocol=protocol))
        (read,) = read_dump(path)
        for name in ('sliced', 'half', 'count', 'empty'):
            assert torch.equal(read[name], samples[0][name])
        assert read['array'].tolist() == [0, 1, 2]
        assert (read['scalar'], read['pair']) == (0.5, (1, 'x'))


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('function', [os.mkdir, torch.load, eval, getattr])
def test_a_dump_cannot_run_code(fail, tmp_path, function):
    path = tmp_path / 'bad.pkl'
    target = str(tmp_path / 'made')
    path.write_bytes(pickle.dumps([Malicious(function, target)]))
    line = fail(path)
    assert 'bad.pkl cannot be read as a dump (it asks for ' in line
    assert not Path(target).exists()


def test_the_bytes_of_a_tensor_cannot_run_code_either(fail, tmp_path):
    inner = pickle.dumps(Malicious(os.mkdir, str(tmp_path / 'made')), protocol=2)
    path = tmp_path / 'bad.pkl'
    content = [Malicious(torch.storage._load_from_bytes, inner)]
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert 'bad.pkl cannot be read as a dump' in fail(path)
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize(
    'arguments', [(0, (6,), (1,)), (3, (2, 2), (1, 1)), (-1, (2,), (1,))]
)
def test_a_tensor_holds_its_own_values_only(fail, tmp_path, arguments):
    path = tmp_path / 'bad.pkl'
    rebuild, (storage, *_) = torch.arange(5.0).__reduce_ex__(2)
    content = [Malicious(rebuild, storage, *arguments, False, {})]
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert 'bad.pkl cannot be read as a dump' in fail(path)


def sample(**changes):
    instances = dict(bboxes=torch.zeros(1, 4), scores=torch.zeros(1, 3))
    instances.update(changes.pop('instances', {}))
    return dict(video_id='a', timestamp=1, pred_instances=instances) | changes


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ([], 'found.pkl does not hold the samples of a test run; write it again'),
        (dict(a=1), 'found.pkl does not hold tubes ('),
        ([sample(), 3], 'sample 2: it cannot be evaluated ('),
        (
            [sample(video_id=None)],
            'sample 1: it cannot be evaluated (its video_id is N',
        ),
        (
            [sample(timestamp=10**400)],
            'sample 1: it cannot be evaluated (int too large',
        ),
        ([sample(timestamp='x')], 'evaluated (could not convert string to float: '),
        (
            [sample(instances=dict(scores=None))],
            'sample 1: predictions of a have scores that are not finite numbers; the',
        ),
        (
            [sample(instances=dict(scores=torch.full((1, 3), torch.inf)))],
            'sample 1: predictions of a have scores that are not finite numbers; the',
        ),
        (
            [sample(instances=dict(scores=torch.full((1, 3), 7.0)))],
            '(its scores from 7 to 7 are not in [0, 1])',
        ),
        (
            [sample(instances=dict(bboxes=torch.tensor([[9.0, 9, 40, 60]])))],
            'sample 1: it cannot be evaluated (the box [9.0, 9.0, 40.0, 60.0] is not up',
        ),
        (
            [sample(instances=dict(bboxes=torch.tensor([[0.5, 0, 0.25, 1]])))],
            '(the box [0.5, 0.0, 0.25, 1.0] is not upright in [0, 1])',
        ),
        (
            [sample(instances=dict(scores=torch.zeros(2, 3)))],
            'sample 1: predictions of a have bboxes and scores of the shapes (1, 4) and',
        ),
        (
            [sample(instances=dict(scores=torch.zeros(1, 5)))],
            'sample 1: predictions of a have scores of shape (1, 5), but',
        ),
    ],
)
def test_faulty_dumps_are_refused_with_their_sample(fail, tmp_path, content, sentence):
    path = tmp_path / 'found.pkl'
    path.write_bytes(pickle.dumps(content))
    line = fail(path)
    assert str(path) in line
    assert sentence in line


@pytest.mark.parametrize(
    ('damage', 'sentence'),
    [
        (lambda data: data[: len(data) // 2], 'cannot be read as a dump'),
        (lambda data: b'', 'cannot be read as a dump (Ran out of input); write it'),
        (gzip.compress, 'cannot be read as a dump'),
    ],
)
def test_damaged_dumps(fail, tmp_path, damage, sentence):
    path = tmp_path / 'found.pkl'
    path.write_bytes(damage(pickle.dumps([sample()])))
    assert f'found.pkl {sentence}' in fail(path)


def test_an_earlier_dump_survives_a_full_disk(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / 'found.pkl'
    path.write_bytes(b'earlier')
    metric = DumpPredictions(str(path))
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space'):
        patch.setattr(os, 'fsync', full)
        metric.compute_metrics([sample()])
    assert path.read_bytes() == b'earlier'
    metric.compute_metrics([sample()])
    assert len(read_dump(path)) == 1


def test_a_csv_with_perfect_detections_scores_one(evaluate):
    values, notes = evaluate(lines(*PERFECT))
    assert set(values) >= {'mAP/overall', 'mAP/class 1', 'mAP/class 2'}
    assert set(values.values()) == {1}
    assert 'note' not in notes


@pytest.mark.parametrize(
    'data',
    [
        lines(*PERFECT[::-1]),
        lines(*PERFECT).replace(b'\n', b'\r\n') + b'\r\n',
        lines(*PERFECT).replace(b'\n', b'\r'),
        b'\xef\xbb\xbf' + lines(*PERFECT),
        lines('', *PERFECT, '  ', ''),
        lines(*PERFECT).replace(b',', b' , '),
        lines(*PERFECT).replace(b'a,1,', b'a,0001.0,'),
        lines(*PERFECT).replace(b',0,0,', b',-0.001,-0.001,'),
    ],
    ids=['order', 'windows', 'mac', 'mark', 'blank', 'spaces', 'number', 'beyond'],
)
def test_what_is_accepted_changes_nothing(evaluate, data):
    values, notes = evaluate(data)
    assert set(values.values()) == {1}
    assert 'note' not in notes


def test_repeated_lines_count_each(evaluate):
    values, notes = evaluate(lines(*PERFECT, PERFECT[0].replace('0.9', '0.95')))
    # In front of the second right one of class 1 there is now a wrong one.
    assert values['mAP/class 1'] == pytest.approx((1 + 2 / 3) / 2)
    assert 'line 4: keyframe, box and action of an earlier line are repeated' in notes


def test_all_lines_count_whatever_their_score(evaluate):
    low = [line.replace('0.9', '0.001') for line in PERFECT[:2]]
    found = lines(*low, PERFECT[2].replace('0.9', '0'))
    values, _ = evaluate(found)
    assert set(values.values()) == {1}
    option = 'test_evaluator.score_thr=0.0005'
    values, _ = evaluate(found, '--cfg-options', option)
    assert values['mAP/class 1'] == 1 / 2


def test_scores_keep_their_digits(evaluate):
    # As 32-bit floats they would be equal.
    found = lines(
        'a,1,0.6,0,1,1,1,0.90000000001',
        'a,1,0,0,0.4,1,1,0.9',
        'b,2.5,0,0,0.4,1,1,0.90000000002',
    )
    values, _ = evaluate(found)
    # Right, wrong, right.
    assert values['mAP/class 1'] == pytest.approx((1 + 2 / 3) / 2)


def test_unknown_keyframes_are_noted(evaluate, write_text):
    found = lines('x,1,0,0,1,1,1,1', *PERFECT, 'a,9,0,0,1,1,1,1')
    values, notes = evaluate(found)
    # Two wrong ones in front of the right ones of class 1, and none of class 2.
    assert values['mAP/class 1'] == 2 / 4
    assert values['mAP/class 2'] == 1
    assert 'line 1: x,0001 is not in the ground truth' in notes
    assert 'counts as wrong (2 of 4 predicted keyframes are so)' in notes
    option = f'test_evaluator.exclude_file={write_text("exclude.csv", "a,9")}'
    values, notes = evaluate(found, '--cfg-options', option)
    assert values['mAP/class 1'] == 2 / 3
    assert 'counts as wrong (1 of 4 predicted keyframes are so)' in notes
    assert 'a,0009 is not in the ground truth' in notes
    assert 'does not count (1 of 4 predicted keyframes are so)' in notes
    option = 'test_evaluator.protocol=mmaction2'
    values, notes = evaluate(found, '--cfg-options', option)
    assert set(values.values()) == {1}
    assert 'does not count (2 of 4 predicted keyframes are so)' in notes
    # Videos of another part of the dataset are no news, keyframes of its own ones are.
    values, notes = evaluate(found, '--cfg-options', 'test_evaluator.own_videos=True')
    assert values['mAP/class 1'] == 2 / 3
    assert 'x,0001' not in notes
    assert 'a,0009 is not in the ground truth' in notes
    assert 'counts as wrong (1 of 4 predicted keyframes are so)' in notes


def test_missing_keyframes_count_as_missed(evaluate, fail):
    values, _ = evaluate(lines(*PERFECT[:2]))
    assert values['mAP/class 1'] == 0.5
    sentence = 'None of the predicted keyframes, as b,0001, is in the ground truth of'
    assert sentence in fail(lines('b,1,0,0,1,1,1,1'))


def test_custom_classes_name_the_action_ids(evaluate, fail, write_text):
    items = (
        f'item {{\n  name: "{name}"\n  id: {n}\n}}' for n, name in ((1, 'p'), (2, 'q'))
    )
    label_file = write_text('map.pbtxt', *items)
    options = (
        '--cfg-options',
        f'test_evaluator.label_file={label_file}',
        'test_evaluator.custom_classes=[2]',
        'test_evaluator.num_classes=None',
    )
    values, _ = evaluate(lines(*PERFECT, 'a,1,0,0,0.4,1,7,1'), *options)
    assert values['mAP/q'] == values['mAP/overall'] == 1
    assert 'mAP/p' not in values
    assert 'line 1: the action id 1 is unknown to' in fail(lines(PERFECT[0]), *options)


@pytest.mark.parametrize(
    'line',
    [
        'a,1,0,0,1,1,1',
        'a,1,0,0,1,1,1,1,3',
        'a;1;0;0;1;1;1;1',
        'video,timestamp,x1,y1,x2,y2,action_id,score',
        '"a","1","0","0","1","1","1","1"',
        '"a",1,0,0,1,1,1,1',
        ',1,0,0,1,1,1,1',
        'a,nan,0,0,1,1,1,1',
        'a,-1,0,0,1,1,1,1',
        'a,1,0,x,1,1,1,1',
        'a,1,12,30,50,80,1,1',
        'a,1,0.5,0,0.2,1,1,1',
        'a,1,nan,0,0.2,1,1,1',
        'a,1,0,0,1,1,0,1',
        'a,1,0,0,1,1,1.5,1',
        'a,1,0,0,1,1,inf,1',
        'a,1,0,0,1,1,1,nan',
        'a,1,0,0,1,1,1,inf',
        'a,1,0,0,1,1,1,87',
        'a,1,0,0,1,1,1,0_1',
        'a,1,0,0,1,1,1,',
    ],
)
def test_faulty_lines_are_refused_with_the_form_they_should_have(fail, line):
    sentence = fail(lines(PERFECT[0], line))
    form = 'is not video,timestamp,x1,y1,x2,y2,action_id,score (without'
    assert f'found.csv, line 2: {line!r} {form}' in sentence
    assert sentence.endswith('; correct or remove it.')


@pytest.mark.parametrize(
    ('data', 'sentence'),
    [
        (b'\n\n', 'found.csv holds no detection; write lines of video,'),
        (b'\x1f\x8b\x08', 'line 1: the file is not UTF-8 text; unpack it'),
        (pickle.dumps([sample()]), 'line 1: the file is not UTF-8 text'),
        (lines(*PERFECT, 'é').decode().encode('latin-1'), 'line 4: the file is not'),
        (lines(*PERFECT).decode().encode('utf-16-le'), r"line 1: 'a\x00,"),
        (lines(PERFECT[0], 'a,1,0,0,1,1,3,1'), 'line 2: the action id 3 is unknown to'),
    ],
)
def test_faulty_csv_files_are_refused_with_their_place(fail, data, sentence):
    line = fail(data)
    assert 'found.csv' in line
    assert sentence in line


def test_results_or_config_that_are_not_there(fail, tmp_path, write_text):
    assert 'none.csv does not exist; give a dump of' in fail('none.csv')
    config = write_text('empty.py', 'model = dict()')
    assert 'empty.py has no metric in test_evaluator' in fail(
        lines(*PERFECT), config=config
    )
    config = write_text('host.py', "test_evaluator = dict(type='AccMetric')")
    line = fail(lines(*PERFECT), config=config)
    assert 'AccMetric of test_evaluator cannot evaluate ' in line
    assert 'no argument' in fail(
        lines(*PERFECT), '--cfg-options', 'test_evaluator.iou_thr=1'
    )


@pytest.fixture
def tubes(write_text, tmp_path):
    """A config of both tube metrics: two labels, a video of 20 frames."""

    def still(first, last, *box):
        frames = np.arange(first, last + 1.0)
        return np.column_stack([frames, np.tile(box, (len(frames), 1))])

    truth = dict(
        labels=['run', 'sit'],
        train_videos=[[]],
        test_videos=[['v']],
        nframes=dict(v=20),
        resolution=dict(v=(100, 200)),
        gttubes=dict(
            v={0: [still(1, 18, 0, 0, 50, 100)], 1: [still(3, 20, 100, 0, 150, 100)]}
        ),
    )
    path = tmp_path / 'tubes.pkl'
    path.write_bytes(pickle.dumps(truth))
    metrics = [
        dict(type=metric_type, ann_file=str(path))
        for metric_type in ('TubeFrameMAPMetric', 'VideoMAPMetric')
    ]
    return write_text('tubes.py', f'test_evaluator = {metrics}')


def tube_rows():
    return [f'v,{frame},0,0,0.25,1,1,0.9' for frame in range(1, 19)] + [
        f'v,{frame},0.5,0,0.75,1,2,0.8' for frame in range(3, 21)
    ]


def test_tubes_from_a_csv_of_frames(evaluate, fail, tubes):
    values, _ = evaluate(lines(*tube_rows()), config=tubes)
    assert values['frame_mAP/overall@0.5'] == values['video_mAP/overall@0.5:0.95'] == 1
    assert set(values.values()) == {1}
    left_out, _ = evaluate(lines(*tube_rows(), 'v,21,0,0,1,1,1,1'), config=tubes)
    assert left_out == values
    line = fail(lines('v,1.5,0,0,1,1,1,1'), config=tubes)
    assert 'line 1: A prediction of v has the timestamp 1.5' in line
    line = fail(lines('w,1,0,0,1,1,1,1'), config=tubes)
    assert "None of the predicted videos, as 'w', is a test video" in line


def frame_detections():
    """The same in the form of MultiSports."""
    first = [[0, frame, 0, 0.9, 0, 0, 50, 100] for frame in range(1, 19)]
    second = [[0, frame, 1, 0.8, 100, 0, 150, 100] for frame in range(3, 21)]
    return np.array(first + second, dtype=np.float32)


@pytest.mark.parametrize('form', [np.array, list])
@pytest.mark.parametrize('protocol', [2, 4])
def test_frame_detections_of_multisports(evaluate, tubes, tmp_path, form, protocol):
    table = frame_detections()
    expected, _ = evaluate(lines(*tube_rows()), config=tubes)
    path = tmp_path / 'frame_detections.pkl'
    path.write_bytes(pickle.dumps(form(table), protocol=protocol))
    assert evaluate(path, config=tubes)[0] == expected
    # All rows count, whatever their score, and in any order.
    table[:, 3] *= 1e-3
    path.write_bytes(pickle.dumps(form(table[::-1]), protocol=protocol))
    options = ('--cfg-options', 'test_evaluator.1.linking.min_score=0')
    assert evaluate(path, *options, config=tubes)[0] == expected


def test_frame_detections_are_those_of_the_published_evaluator(evaluate, tmp_path):
    random = np.random.RandomState(0)
    names = ['b', 'a']
    gttubes, rows = {}, []
    for video, name in enumerate(names):
        gttubes[name] = {0: [], 1: []}
        for label in (0, 1, 1):
            low = random.randint(0, 50, 2)
            box = np.array([*low, *(low + random.randint(5, 50, 2))])
            frames = np.arange(1.0, 21)
            gttubes[name][label].append(
                np.column_stack([frames, np.tile(box, (20, 1))])
            )
            for frame in range(1, 21):
                near = box + random.randint(-4, 5, 4)
                near = np.concatenate([near[:2], np.maximum(near[:2] + 1, near[2:])])
                rows.append([video, frame, label, random.rand(), *near])
    truth = dict(
        labels=['run', 'sit'],
        train_videos=[[]],
        test_videos=[names],
        nframes=dict.fromkeys(names, 20),
        resolution=dict(b=(120, 160), a=(90, 110)),
        gttubes=gttubes,
    )
    truth_path, path = tmp_path / 'truth.pkl', tmp_path / 'frame_detections.pkl'
    truth_path.write_bytes(pickle.dumps(truth))
    table = np.array(rows, dtype=np.float32)
    path.write_bytes(pickle.dumps(table))
    metric = dict(
        type='TubeFrameMAPMetric', ann_file=str(truth_path), protocol='multisports'
    )
    config = tmp_path / 'published.py'
    config.write_text(f'test_evaluator = {metric}')
    ours = evaluate(path, config=config)[0]['frame_mAP/overall@0.5']
    published = multisports_utils.frameAP(truth, table, 0.5, print_info=False)
    assert 100 * ours == pytest.approx(published)
    assert 5 < published < 95


TABLE = frame_detections()


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (
            TABLE[:, :7],
            'nor frame_detections (its shape is (36, 7), not (n, 8)); write',
        ),
        (TABLE[:0], 'nor frame_detections (its shape is (0, 8), not (n, 8)); write'),
        ([TABLE[0], TABLE[1, :5]], 'holds neither the samples of a test run nor'),
        ([('v', 0.9, TABLE[:, :6])], 'holds neither the samples of a test run nor'),
        (TABLE - [0, 1, 0, 0, 0, 0, 0, 0], 'row 1: 0, 0, 0, 0.9, 0, 0, 50, 100 is not'),
        (TABLE * [1, 1, 1, 9, 1, 1, 1, 1], 'row 1: 0, 1, 0, 8.1, 0, 0, 50, 100 is not'),
        (TABLE * [1, np.nan, 1, 1, 1, 1, 1, 1], 'row 1: 0, nan, 0, 0.9, 0, 0, 50, 100'),
        (TABLE[:, [0, 1, 2, 3, 6, 5, 4, 7]], 'an upright box in pixels); correct or'),
        (np.add(TABLE, [1e300, 0, 0, 0, 0, 0, 0, 0]), 'row 1: 1e+300, 1, 0, 0.9'),
        (
            np.add(TABLE, [1, 0, 0, 0, 0, 0, 0, 0]),
            'row 1: 1, 1, 0, 0.9, 0, 0, 50, 100 has an',
        ),
        (
            np.add(TABLE, [0, 0, 1, 0, 0, 0, 0, 0]),
            'lacks, of 1 videos and 2 labels; give',
        ),
        (TABLE * [1, 1, 1, 1, 0.005, 0.01, 0.005, 0.01], 'all boxes lie within one'),
    ],
)
def test_faulty_frame_detections_are_a_sentence(
    fail, tubes, tmp_path, content, sentence
):
    path = tmp_path / 'found.pkl'
    path.write_bytes(pickle.dumps(content))
    line = fail(path, config=tubes)
    assert 'found.pkl' in line
    assert sentence in line


def test_frame_detections_need_tubes(fail, tmp_path):
    path = tmp_path / 'found.pkl'
    path.write_bytes(pickle.dumps(TABLE))
    line = fail(path)
    assert 'of tubes, which FrameMAPMetric of test_evaluator does not have; use' in line


ROWS = np.column_stack([TABLE[:18, [1, 4, 5, 6, 7]], np.full(18, 0.5)])
OTHER = np.column_stack([TABLE[18:, [1, 4, 5, 6, 7]], np.full(18, 0.5)])
VIDEO_DETECTIONS = {0: [('v', np.float32(0.9), ROWS)], 1: [('v', 0.8, OTHER)]}


@pytest.fixture
def evaluate_tubes(evaluate, tubes, tmp_path):
    """Values and notes of video_detections, or of a folder of what it holds of v."""

    def evaluate_tubes(content, *options, folder=False, protocol=2):
        path = tmp_path / 'found.pkl'
        if folder:
            path = tmp_path / 'folder' / 'v_tubes.pkl'
            path.parent.mkdir(exist_ok=True)
            content = {
                label: [[rows, score] for video, score, rows in found if video == 'v']
                for label, found in content.items()
            }
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        return evaluate(path.parent if folder else path, *options, config=tubes)

    return evaluate_tubes


@pytest.mark.parametrize('folder', [False, True])
def test_published_tubes(evaluate_tubes, folder):
    for protocol in (2, 4):
        values, notes = evaluate_tubes(
            VIDEO_DETECTIONS, folder=folder, protocol=protocol
        )
        assert set(values.values()) == {1}
        assert 'video_mAP/overall@0.5' in values
        assert 'frame_mAP/overall@0.5' not in values
        assert 'note: TubeFrameMAPMetric does not take tubes and is left out' in notes
    # Frames may be left out at will, and so may the scores of the boxes.
    bare = {
        label: [(video, score / 1e3, rows[[0, *range(2, 18)], :5])]
        for label, [(video, score, rows)] in VIDEO_DETECTIONS.items()
    }
    values, _ = evaluate_tubes(bare, folder=folder)
    assert values['video_mAP/overall@0.75'] == 1
    assert values['video_mAP/overall@0.5:0.95'] == pytest.approx(0.9)


def test_tubes_that_do_not_count_are_noted(evaluate_tubes):
    beyond = [np.array(ROWS), np.array(ROWS)]
    beyond[0][:, 0] += 10**15
    longer = np.vstack([OTHER, [21, 0, 0, 9, 9, 1], [9e9, 0, 0, 9, 9, 1]])
    found = {
        0: [('v', 1, beyond[0]), ('w', 1, ROWS), *VIDEO_DETECTIONS[0]],
        1: [('v', 0.8, longer)],
    }
    values, notes = evaluate_tubes(found)
    assert set(values.values()) == {1}
    assert 'found.pkl, v: a tube goes on beyond the end of its video' in notes
    assert '(2 such tubes)' in notes
    assert 'found.pkl, w is not in the ground truth of VideoMAPMetric' in notes
    assert '(1 of 2 predicted videos are so)' in notes


def test_tubes_of_act_and_moc_are_suppressed_as_in_their_evaluation(evaluate_tubes):
    # 5 of 18 frames of a better tube are too few to go for, 6 are not.
    few, more = (
        {0: [('v', 0.8, ROWS), ('v', 0.9, ROWS[:number])], 1: []} for number in (5, 6)
    )
    for found, folder, ap in (
        (few, True, 1 / 4),
        (more, True, 0),
        (more, False, 1 / 4),
    ):
        values, _ = evaluate_tubes(found, folder=folder)
        assert values['video_mAP/run@0.5'] == ap


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ({}, 'found.pkl holds no tube; write (video, score, array)'),
        ({0: [], 1: []}, 'found.pkl holds no tube; write (video, score, array)'),
        ({0: 3}, "found.pkl does not hold tubes ('int' object is not iterable); write"),
        ({0: [(ROWS, 0.9)]}, 'label 0, tube 1 (not enough values to unpack'),
        ({0: [('v', ROWS, 0.9)]}, 'label 0, tube 1 (The truth value of an array'),
        ({0: [('v', 0.9, ROWS[:, :4])]}, 'tube 1 (it has the shape (18, 4) and'),
        ({0: [('v', 0.9, ROWS[:0])]}, 'tube 1 (it has the shape (0, 5) and'),
        ({0: [('v', 0.9, ROWS[0])]}, 'tube 1 (it has the shape (6,) and'),
        ({0: [('v', 0.9, ROWS[::-1])]}, '100.0] after frame 18); write a dict from'),
        ({0: [('v', 0.9, ROWS - [1, 0, 0, 0, 0, 0])]}, 'the row [0.0, 0.0, 0.0, 50.0'),
        (
            {0: [('v', 0.9, ROWS[:, [0, 3, 2, 1, 4, 5]])]},
            'the row [1.0, 50.0, 0.0, 0.0',
        ),
        ({0: [('v', 0.9, ROWS * np.nan)]}, 'tube 1 (it has the row [nan, nan, nan,'),
        ({0: [('v', 9, ROWS)]}, 'tube 1 (its score is 9); write a dict from labels'),
        ({0: [('v', np.nan, ROWS)]}, 'tube 1 (its score is nan); write a dict from'),
        ({0: [(0, 0.9, ROWS)]}, 'tube 1 (it is of label 0 in video 0); write a dict'),
        ({'run': VIDEO_DETECTIONS[0]}, "tube 1 (it is of label 'run' in video 'v')"),
        ({-1: VIDEO_DETECTIONS[0]}, "tube 1 (it is of label -1 in video 'v')"),
        ({2: VIDEO_DETECTIONS[0]}, 'v: the label 2 is none of the 2 of the ground'),
        ({0: [('v', 0.9, ROWS / [1, 200, 100, 200, 100, 1])]}, 'lie within one pixel'),
        ({0: [('w', 0.9, ROWS)]}, "None of the predicted videos, as 'w', is a test"),
    ],
)
def test_faulty_tubes_are_a_sentence(fail, tubes, tmp_path, content, sentence):
    path = tmp_path / 'found.pkl'
    path.write_bytes(pickle.dumps(content))
    assert sentence in fail(path, config=tubes)


def test_faulty_folders_of_tubes_are_a_sentence(fail, tubes, tmp_path):
    line = fail(tmp_path, config=tubes)
    assert f'{tmp_path}/v_tubes.pkl: the file does not exist; give a folder' in line
    path = tmp_path / 'v_tubes.pkl'
    path.write_bytes(b'3')
    assert 'v_tubes.pkl cannot be read as a pickle of tubes' in fail(
        tmp_path, config=tubes
    )
    for content, words in (
        ([ROWS], 'v_tubes.pkl does not hold tubes (it is of type list); write a dict'),
        (VIDEO_DETECTIONS, 'v_tubes.pkl, label 0, tube 1 (too many values to unpack'),
    ):
        path.write_bytes(pickle.dumps(content))
        assert words in fail(tmp_path, config=tubes)


def test_tubes_need_a_metric_of_tubes(fail, tmp_path):
    path = tmp_path / 'found.pkl'
    path.write_bytes(pickle.dumps(VIDEO_DETECTIONS))
    for found in (path, tmp_path):
        words = f'{found} is of tubes, which FrameMAPMetric of test_evaluator does not'
        assert words in fail(found)


def test_the_mean_over_splits(tubes, tmp_path, capsys):
    truth = pickle.loads((tmp_path / 'tubes.pkl').read_bytes())
    for key in ('nframes', 'resolution', 'gttubes'):
        truth[key]['w'] = truth[key]['v']
    truth['gttubes']['w'] = {0: truth['gttubes']['v'][0]}
    truth.update(test_videos=[['v'], ['w']], train_videos=[['w'], ['v']])
    (tmp_path / 'tubes.pkl').write_bytes(pickle.dumps(truth))
    rows = '\n'.join(tube_rows())
    found = [tmp_path / 'v.csv', tmp_path / 'w.csv']
    found[0].write_text(rows)
    # Of run, half of the frames with a wrong one before.
    half = [f'w,{frame},0.5,0,0.75,1,1,0.95' for frame in range(1, 10)]
    found[1].write_text('\n'.join([*half, *tube_rows()]).replace('v,', 'w,'))
    report = tmp_path / 'values.json'

    def run(*args):
        run_tool('evaluate', *args, tubes, '--json', report, '--splits', 1, 2)
        return json.loads(report.read_text())

    values = run(*found)
    assert list(values) == ['split 1', 'split 2', 'mean']
    name = 'frame_mAP/overall@0.5'
    first, second = values['split 1'][name], values['split 2'][name]
    assert first == 1 > second > 0
    assert values['mean'][name] == (first + second) / 2
    # What a split does not have has no mean.
    assert 'frame_mAP/sit@0.5' in values['split 1'].keys() - values['mean'].keys()
    (line,) = [row for row in capsys.readouterr().out.splitlines() if name in row]
    assert line.split() == [name, '1.0000', f'{second:.4f}', f'{(1 + second) / 2:.4f}']

    for given, words in (
        (found[::-1], 'w.csv, line 1: w,0001 is not in the ground truth of'),
        (found[:1], '--splits 1 2 does not name 1 different splits; name one for each'),
        ([*found, found[0]], '--splits 1 2 does not name 3 different splits; name one'),
    ):
        with pytest.raises(SystemExit):
            run(*given)
        assert words in capsys.readouterr().err
    found[0].write_text(rows + '\n' + rows.replace('v,', 'w,'))
    with pytest.raises(SystemExit):
        run(*found)
    assert 'w,0001 is not in the ground truth of' in capsys.readouterr().err
    truth['test_videos'] = truth['train_videos'] = [['v', 'w']]
    (tmp_path / 'tubes.pkl').write_bytes(pickle.dumps(truth))
    with pytest.raises(SystemExit):
        run(*found)
    assert 'split=2 is not in' in capsys.readouterr().err


def test_settings_of_one_metric_of_a_list(evaluate, fail, tubes):
    found, options = lines(*tube_rows()), '--cfg-options'
    setting = 'test_evaluator.0.iou_thrs=[0.3,0.75]'
    values, _ = evaluate(found, options, setting, config=tubes)
    assert {'frame_mAP/overall@0.3', 'video_mAP/overall@0.5'} <= values.keys()
    assert 'frame_mAP/overall@0.5' not in values
    line = fail(found, options, 'test_evaluator.iou_thrs=0.3', config=tubes)
    assert 'the entries of a list have numbers: a_list.0.a_setting=1' in line


def test_an_evaluator_of_metrics(evaluate, tubes):
    config = Config.fromfile(tubes)
    config.test_evaluator = dict(type='Evaluator', metrics=config.test_evaluator)
    path = Path(tubes).with_name('evaluator.py')
    config.dump(path)
    found = lines(*tube_rows())
    assert evaluate(found, config=path)[0] == evaluate(found, config=tubes)[0]


def test_metrics_with_the_same_names_are_refused(fail, tubes):
    options = ('--cfg-options', 'test_evaluator.1.prefix=frame_mAP')
    line = fail(lines(*tube_rows()), *options, config=tubes)
    assert "give the value 'frame_mAP/overall@0.5'; set the prefix of one" in line


class CountingMetric(BaseMetric):
    """A metric that is not of this package."""

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(samples=len(results))


def test_metrics_of_others_evaluate_a_dump(tmp_path):
    file = tmp_path / 'found.pkl'
    file.write_bytes(pickle.dumps([dict(video_id='a'), dict(video_id='b')]))
    values, _ = evaluate_results([CountingMetric()], read_results(file))
    assert values == dict(samples=2)
