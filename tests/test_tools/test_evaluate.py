import gzip
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import RunsCode
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.structures import InstanceData
from run_tool import ROOT, run_and_fail, run_tool
from tube_data import csv_lines, evaluate_results, ground_truth, noisy, still

from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.evaluation import TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.metrics.predictions import to_numpy
from stmixer_mm.evaluation.results.dumps import DumpPredictions
from stmixer_mm.projects.diagnosis.offline import read_results
from stmixer_mm.registry import METRICS

DOCUMENTATION = (ROOT / 'docs' / 'evaluation.md').read_text()
CONFIGS = dict(
    re.findall(r'`(\w+\.py)`:\n\n```python\n(.*?)^```$', DOCUMENTATION, re.M | re.S)
)
TRUTH = ('a,1,0,0,0.4,1,1,0', 'a,1,0.6,0,1,1,2,1', 'b,0002.5,0,0,0.4,1,1,0')
PERFECT = ('a,1,0,0,0.4,1,1,0.9', 'a,1,0.6,0,1,1,2,0.9', 'b,2.5,0,0,0.4,1,1,0.9')


@pytest.fixture
def config(write_text, tmp_path, monkeypatch):
    """``keyframes.py`` of the documentation."""
    monkeypatch.chdir(tmp_path)
    write_text('truth.csv', *TRUTH)
    write_text('label_map.pbtxt', format_label_map(dict(run=1, sit=2)))
    return write_text('keyframes.py', CONFIGS['keyframes.py'])


@pytest.fixture
def tubes(write_text, tmp_path, monkeypatch):
    """``tubes.py``: both metrics; two labels, a video of 20 frames."""
    monkeypatch.chdir(tmp_path)
    gttubes = {
        0: [still(1, 18, [0, 0, 50, 100])],
        1: [still(3, 20, [100, 0, 150, 100])],
    }
    truth = ground_truth({'v': gttubes}, labels=['run', 'sit'], nframes=20)
    (tmp_path / 'GT.pkl').write_bytes(pickle.dumps(truth))
    return write_text('tubes.py', CONFIGS['tubes.py'])


@pytest.fixture
def write(tmp_path):
    """A file of results: lines or bytes of a csv, or the content of a pickle."""

    def write(content):
        if isinstance(content, Path):
            return content
        if isinstance(content, tuple):
            content = '\n'.join(content).encode()
        is_csv = isinstance(content, bytes)
        path = tmp_path / ('found.csv' if is_csv else 'found.pkl')
        path.write_bytes(content if is_csv else pickle.dumps(content, protocol=2))
        return path

    return write


@pytest.fixture
def evaluate(config, tmp_path, write):
    """Values of results."""

    def evaluate(results, *options, config=config):
        report = tmp_path / 'values.json'
        run_tool('evaluate', write(results), config, '--json', report, *options)
        values = json.loads(report.read_text())
        values.pop('intervals')
        return values

    return evaluate


@pytest.fixture
def fail(config, capsys, write):
    """The one sentence that the tool ends in."""

    def fail(results, config=config):
        return run_and_fail(capsys, 'evaluate', write(results), config)

    return fail


def sample(video='a', timestamp=1, **changes):
    instances = dict(bboxes=np.zeros((1, 4)), scores=np.zeros((1, 3))) | changes
    return dict(video_id=video, timestamp=timestamp, pred_instances=instances)


def test_same_digits_as_in_a_run_from_dump_and_csv(config, tmp_path, evaluate):
    random, dump = np.random.RandomState(0), tmp_path / 'dump.pkl'
    boxes = torch.tensor([[0, 0, 0.4, 1], [0.1, 0, 0.5, 1], [0.6, 0.1, 1, 1]])
    samples = [
        sample(*moment, bboxes=boxes, scores=torch.tensor(random.rand(3, 3)).float())
        for moment in (('a', 1), ('b', 2.5), ('a', 9))
    ]
    metric = METRICS.build(Config.fromfile(config).test_evaluator)
    evaluator = Evaluator([metric, DumpPredictions(str(dump))])
    evaluator.process(samples)
    expected = evaluator.evaluate(len(samples))
    assert evaluate(dump) == expected
    assert 0 < expected['mAP/overall'] < 1
    assert evaluate(tuple(csv_lines(samples))) == expected


def test_a_dump_of_mmaction2(config, tmp_path, evaluate):
    """``tools/test.py --dump`` writes data samples with tensors, some of them slices."""
    random, expected, samples = torch.Generator().manual_seed(0), [], []
    for time in (1, 9):
        rois, scores = torch.rand((2, 3, 5), generator=random)
        rois = torch.cat([rois[:, :3], rois[:, :2] + rois[:, 2:4]], dim=1).clamp(max=1)
        instances = InstanceData(bboxes=rois[:, 1:], scores=scores[:, :3].bfloat16())
        meta = dict(video_id='a', timestamp=time, img_shape=(256, 340), crop=np.ones(4))
        samples.append(ActionDataSample(metainfo=meta, pred_instances=instances))
        truth = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, 3))
        samples[-1].set_data(
            dict(gt_instances=truth, proposals=InstanceData(bboxes=rois))
        )
        expected.append(
            sample(
                'a', time, bboxes=rois[:, 1:].numpy(), scores=to_numpy(instances.scores)
            )
        )
    evaluator = Evaluator(DumpResults(str(tmp_path / 'mmaction2.pkl')))
    evaluator.process(samples)
    evaluator.evaluate(len(samples))
    assert evaluate(tmp_path / 'mmaction2.pkl') == evaluate(expected)


@pytest.mark.parametrize('tensor', [torch.ones(1).expand(1000), torch.nn.Linear(1, 1)])
def test_tensors_that_are_none_of_a_dump(fail, tensor):
    assert 'found.pkl' in fail([sample(scores=tensor)])


def test_lines_that_count(evaluate):
    outside = [line.replace(',0,0,', ',-0.001,-0.001,') for line in PERFECT]
    assert set(evaluate(tuple(outside)).values()) == {1}
    # Wrong ones in front of the second right one, or of both, lower AP: a repeated line,
    repeated = (*PERFECT, PERFECT[0].replace('0.9', '0.95'))
    # and scores that would be equal as 32-bit floats.
    near = (
        'a,1,0.6,0,1,1,1,0.90000000001',
        'a,1,0,0,0.4,1,1,0.9',
        'b,2.5,0,0,0.4,1,1,0.90000000002',
    )
    for lines in (repeated, near):
        assert evaluate(lines)['mAP/run'] == pytest.approx((1 + 2 / 3) / 2)


TUBE_ROWS = (
    *(f'v,{frame},0,0,0.25,1,1,0.9' for frame in range(1, 19)),
    *(f'v,{frame},0.5,0,0.75,1,2,0.8' for frame in range(3, 21)),
)


def test_tubes_from_a_csv(evaluate, tubes):
    """All rows count, whatever their score, and none after the end of the video."""
    values = evaluate((*TUBE_ROWS, 'v,21,0,0,1,1,1,1'), config=tubes)
    assert 'video_mAP/overall@0.5:0.95' in values
    assert set(values.values()) == {1}


@pytest.mark.parametrize(
    'content, place',
    [
        *(
            ((PERFECT[0], line), 'found.csv, line 2: ')
            for line in (
                '"a","1","0","0","1","1","1","1"',
                'a,nan,0,0,1,1,1,1',
                'a,1,12,30,50,80,1,1',
                'a,1,0,0,1,1,1.5,1',
                'a,1,0,0,1,1,1,87',
            )
        ),
        (gzip.compress(b'a', mtime=0), 'found.csv, line 1: '),
        (b'\n\n', 'found.csv'),
        (('b,1,0,0,1,1,1,1',), 'b,0001'),  # nothing of the ground truth
        *(
            ([sample(), sample(**changes)], 'found.pkl, sample 2')
            for changes in (
                dict(timestamp='x'),
                dict(scores=None),
                dict(scores=np.zeros((1, 5))),
                dict(bboxes=np.full((1, 4), np.nan)),
                dict(bboxes=np.zeros((1, 2, 4)), person_scores=np.ones((1, 3))),
            )
        ),
        ([RunsCode()], 'found.pkl'),
    ],
)
def test_faulty_results_are_refused_with_their_place(fail, tmp_path, content, place):
    assert place in fail(content)
    assert not (tmp_path / 'made_by_a_pickle').exists()


def test_the_mean_over_splits(tubes, tmp_path, capsys):
    truth = pickle.loads((tmp_path / 'GT.pkl').read_bytes())
    for key in ('nframes', 'resolution', 'gttubes'):
        truth[key]['w'] = truth[key]['v']
    truth['gttubes']['w'] = {0: truth['gttubes']['v'][0]}
    truth.update(test_videos=[['v'], ['w']], train_videos=[['w'], ['v']])
    (tmp_path / 'GT.pkl').write_bytes(pickle.dumps(truth))
    files = [tmp_path / 'v.csv', tmp_path / 'w.csv']
    files[0].write_text('\n'.join(TUBE_ROWS))
    # Of run, half of the frames with a wrong one before.
    half = [f'w,{frame},0.5,0,0.75,1,1,0.95' for frame in range(1, 10)]
    files[1].write_text('\n'.join([*half, *TUBE_ROWS]).replace('v,', 'w,'))
    options = tubes, '--json', tmp_path / 'values.json', '--splits', 1, 2
    run_tool('evaluate', *files, *options)
    assert 'one video' in capsys.readouterr().err
    values = json.loads((tmp_path / 'values.json').read_text())
    values.pop('intervals')
    first, second, mean = (of['frame_mAP/overall@0.5'] for of in values.values())
    assert first == 1 > second > 0
    assert mean == (first + second) / 2
    # A value that a split lacks has no mean.
    assert 'frame_mAP/sit@0.5' in values['split 1'].keys() - values['mean'].keys()
    run_and_fail(capsys, 'evaluate', *files[::-1], *options)


def test_a_table_of_all_protocols(tmp_path, monkeypatch, write_text, capsys):
    monkeypatch.chdir(tmp_path)
    truth, samples = noisy(0)
    (tmp_path / 'GT.pkl').write_bytes(pickle.dumps(truth))
    config, report = write_text('tubes.py', CONFIGS['tubes.py']), tmp_path / 'all.json'
    predictions = write_text('found.csv', *csv_lines(samples))
    run_tool('evaluate', predictions, config, '--protocol', 'all', '--json', report)
    rows = json.loads(report.read_text())
    for kind, unit in ((TubeFrameMAPMetric, 'boxes'), (VideoMAPMetric, 'tubes')):
        of_kind = {row['protocol']: row for row in rows if row['of'] == unit}
        assert of_kind.keys() == kind.protocols.keys()
        for name in ('act', 'yowo'):
            is_linked = kind is VideoMAPMetric
            options = dict(protocol=name, **dict(linking=name) if is_linked else {})
            metric = kind('GT.pkl', **options)
            values = evaluate_results([metric], read_results(predictions))
            overall = values[f'{metric.default_prefix}/overall@0.5']
            assert of_kind[name]['mAP@0.5'] == overall
    assert 'yowo' in run_and_fail(
        capsys, 'evaluate', predictions, config, '--protocol', 'yowoo'
    )
