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


GTTUBES = {0: [still(1, 18, [0, 0, 50, 100])], 1: [still(3, 20, [100, 0, 150, 100])]}


@pytest.fixture
def config(write_text, tmp_path, monkeypatch):
    """``keyframes.py`` of the documentation, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_text('truth.csv', *TRUTH)
    write_text('label_map.pbtxt', format_label_map(dict(run=1, sit=2)))
    return write_text('keyframes.py', CONFIGS['keyframes.py'])


@pytest.fixture
def write_tubes(write_text, tmp_path, monkeypatch):
    """``tubes.py``, with both metrics, and its ground truth, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(truth):
        (tmp_path / 'GT.pkl').write_bytes(pickle.dumps(truth))
        return write_text('tubes.py', CONFIGS['tubes.py'])

    return write


def write(content):
    """A file of results: lines or bytes of a csv, or the content of a pickle."""
    if isinstance(content, Path):
        return content
    if isinstance(content, tuple):
        content = '\n'.join(content).encode()
    is_csv = isinstance(content, bytes)
    path = Path('found.csv' if is_csv else 'found.pkl')
    path.write_bytes(content if is_csv else pickle.dumps(content, protocol=2))
    return path


def evaluate(results, config):
    """Values of results."""
    run_tool('evaluate', write(results), config, '--json', 'values.json')
    values = json.loads(Path('values.json').read_text())
    values.pop('intervals')
    return values


def sample(video='a', timestamp=1, **changes):
    instances = dict(bboxes=np.zeros((1, 4)), scores=np.zeros((1, 3))) | changes
    return dict(video_id=video, timestamp=timestamp, pred_instances=instances)


def test_same_digits_as_in_a_run_from_dump_and_csv(config):
    random, dump = np.random.RandomState(0), Path('dump.pkl')
    boxes = torch.tensor([[0, 0, 0.4, 1], [0.1, 0, 0.5, 1], [0.6, 0.1, 1, 1]])
    samples = [
        sample(*moment, bboxes=boxes, scores=torch.tensor(random.rand(3, 3)).float())
        for moment in (('a', 1), ('b', 2.5), ('a', 9))
    ]
    metric = METRICS.build(Config.fromfile(config).test_evaluator)
    evaluator = Evaluator([metric, DumpPredictions(str(dump))])
    evaluator.process(samples)
    expected = evaluator.evaluate(len(samples))
    assert evaluate(dump, config) == expected
    assert 0 < expected['mAP/overall'] < 1
    assert evaluate(tuple(csv_lines(samples)), config) == expected


def test_a_dump_of_mmaction2(config):
    """``tools/test.py --dump`` writes data samples with tensors, some of them slices."""
    random, expected, samples = torch.Generator().manual_seed(0), [], []
    for time in (1, 9):
        rois, scores = torch.rand((2, 3, 5), generator=random)
        rois = torch.cat([rois[:, :3], rois[:, :2] + rois[:, 2:4]], dim=1).clamp(max=1)
        bboxes, scores = rois[:, 1:], scores[:, :3].bfloat16()
        meta = dict(video_id='a', timestamp=time, img_shape=(256, 340), crop=np.ones(4))
        data_sample = ActionDataSample(metainfo=meta)
        data_sample.pred_instances = InstanceData(bboxes=bboxes, scores=scores)
        data_sample.gt_instances = InstanceData(bboxes=torch.zeros(0, 4))
        data_sample.proposals = InstanceData(bboxes=rois)
        samples.append(data_sample)
        arrays = dict(bboxes=bboxes.numpy(), scores=to_numpy(scores))
        expected.append(sample('a', time, **arrays))
    evaluator = Evaluator(DumpResults('mmaction2.pkl'))
    evaluator.process(samples)
    evaluator.evaluate(len(samples))
    assert evaluate(Path('mmaction2.pkl'), config) == evaluate(expected, config)


def test_lines_that_count(config):
    outside = [line.replace(',0,0,', ',-0.001,-0.001,') for line in PERFECT]
    assert set(evaluate(tuple(outside), config).values()) == {1}
    # Wrong ones in front of the second right one, or of both, lower AP: a repeated line,
    repeated = (*PERFECT, PERFECT[0].replace('0.9', '0.95'))
    # and scores that would be equal as 32-bit floats.
    near = (
        'a,1,0.6,0,1,1,1,0.90000000001',
        'a,1,0,0,0.4,1,1,0.9',
        'b,2.5,0,0,0.4,1,1,0.90000000002',
    )
    for lines in (repeated, near):
        assert evaluate(lines, config)['mAP/run'] == pytest.approx((1 + 2 / 3) / 2)


TUBE_ROWS = (
    *(f'v,{frame},0,0,0.25,1,1,0.9' for frame in range(1, 19)),
    *(f'v,{frame},0.5,0,0.75,1,2,0.8' for frame in range(3, 21)),
)


def test_tubes_from_a_csv(write_tubes):
    """All rows count, whatever their score, and none after the end of the video."""
    truth = ground_truth({'v': GTTUBES}, labels=['run', 'sit'], nframes=20)
    values = evaluate((*TUBE_ROWS, 'v,21,0,0,1,1,1,1'), write_tubes(truth))
    assert 'video_mAP/overall@0.5:0.95' in values
    assert set(values.values()) == {1}


BAD_LINES = (
    '"a","1","0","0","1","1","1","1"',
    *('a,nan,0,0,1,1,1,1', 'a,1,12,30,50,80,1,1', 'a,1,0,0,1,1,1.5,1'),
    'a,1,0,0,1,1,1,87',
)
BAD_SAMPLES = (
    *(dict(timestamp='x'), dict(scores=None), dict(scores=np.zeros((1, 5)))),
    dict(bboxes=np.full((1, 4), np.nan)),
    dict(bboxes=np.zeros((1, 2, 4)), person_scores=np.ones((1, 3))),
)
NO_TENSORS = torch.ones(1).expand(1000), torch.nn.Linear(1, 1)  # of a dump


@pytest.mark.parametrize(
    'content, place',
    [
        *(((PERFECT[0], line), 'found.csv, line 2: ') for line in BAD_LINES),
        (gzip.compress(b'a', mtime=0), 'found.csv, line 1: '),
        (b'\n\n', 'found.csv'),
        (('b,1,0,0,1,1,1,1',), 'b,0001'),  # nothing of the ground truth
        *(([sample(), sample(**bad)], 'found.pkl, sample 2') for bad in BAD_SAMPLES),
        *(([sample(scores=scores)], 'found.pkl') for scores in NO_TENSORS),
        ([RunsCode()], 'found.pkl'),
    ],
)
def test_faulty_results_are_refused_with_their_place(config, capsys, content, place):
    assert place in run_and_fail(capsys, 'evaluate', write(content), config)
    assert not Path('made_by_a_pickle').exists()


def test_the_mean_over_splits(write_tubes, write_text, capsys):
    gttubes = {'v': GTTUBES, 'w': {0: GTTUBES[0]}}
    truth = ground_truth(gttubes, labels=['run', 'sit'], nframes=20)
    truth.update(test_videos=[['v'], ['w']], train_videos=[['w'], ['v']])
    # Of run, half of the frames with a wrong one before.
    half = [f'w,{frame},0.5,0,0.75,1,1,0.95' for frame in range(1, 10)]
    of_w = [row.replace('v,', 'w,') for row in TUBE_ROWS]
    files = write_text('v.csv', *TUBE_ROWS), write_text('w.csv', *half, *of_w)
    options = write_tubes(truth), '--json', 'values.json', '--splits', 1, 2
    run_tool('evaluate', *files, *options)
    assert 'one video' in capsys.readouterr().err
    values = json.loads(Path('values.json').read_text())
    values.pop('intervals')
    first, second, mean = (of['frame_mAP/overall@0.5'] for of in values.values())
    assert first == 1 > second > 0
    assert mean == (first + second) / 2
    # A value that a split lacks has no mean.
    assert 'frame_mAP/sit@0.5' in values['split 1'].keys() - values['mean'].keys()
    run_and_fail(capsys, 'evaluate', *files[::-1], *options)


def test_a_table_of_all_protocols(write_tubes, write_text):
    truth, samples = noisy(0)
    files = write_text('found.csv', *csv_lines(samples)), write_tubes(truth)
    run_tool('evaluate', *files, '--protocol', 'all', '--json', 'all.json')
    rows = json.loads(Path('all.json').read_text())
    for kind, unit in ((TubeFrameMAPMetric, 'boxes'), (VideoMAPMetric, 'tubes')):
        of_kind = {row['protocol']: row for row in rows if row['of'] == unit}
        assert of_kind.keys() == kind.protocols.keys()
        for name in ('act', 'yowo'):
            linking = dict(linking=name) if kind is VideoMAPMetric else {}
            metric = kind('GT.pkl', protocol=name, **linking)
            values = evaluate_results([metric], read_results(files[0]))
            overall = values[f'{metric.default_prefix}/overall@0.5']
            assert of_kind[name]['mAP@0.5'] == overall
