"""Ranks that share the samples find what one finds, and leave nothing behind."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tiny_stmixer import tool_environment

from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric
from stmixer_mm.evaluation.metrics.collecting import CollectingMetric

SCRIPT = """
import json, sys
import torch.distributed as dist
from mmengine.logging import MMLogger
sys.path.insert(0, {here!r})
from test_collecting import metrics, samples
where, meeting, rank = sys.argv[1:]
dist.init_process_group(
    'gloo', init_method=f'file://{{meeting}}', rank=int(rank), world_size=2
)
if {log_file!r}:
    MMLogger.get_instance('run', log_file={log_file!r})
found = []
for metric in metrics():
    # A sampler pads three samples to two for each rank.
    metric.process(None, [samples()[i] for i in ([0, 2], [1, 0])[int(rank)]])
    found.append(metric.evaluate(3))
with open(f'{{where}}_{{rank}}.json', 'w') as file:
    json.dump(found, file)
# A rank that ends with threads of the group running aborts at times.
dist.barrier()
dist.destroy_process_group()
"""


def metrics():
    tube = np.array([[frame, 0, 0, 40, 100] for frame in (1, 2, 3)], float)
    truth = dict(
        labels=['sit', 'run'],
        train_videos=[[]],
        test_videos=[['v']],
        nframes=dict(v=3),
        resolution=dict(v=(100, 100)),
        gttubes=dict(v={0: [tube], 1: [tube[:1] + np.array([0, 50, 0, 50, 0])]}),
    )
    lines = [f'v,{frame},0,0,0.4,1,1,0\n' for frame in (1, 2, 3)]
    with tempfile.NamedTemporaryFile('w', suffix='.csv') as file:
        file.write(''.join(lines) + 'v,1,0.5,0,0.9,1,2,0\n')
        file.flush()
        frames = FrameMAPMetric(file.name, num_classes=3)
    return frames, TubeFrameMAPMetric(truth)


def samples():
    """The first is wrong: counted twice it would lower the AP further."""
    scores = np.array([[0, 0.9, 0.3], [0, 0.2, 0.1]])
    far, good = [0.6, 0, 1, 1], [0, 0, 0.4, 1]
    return [
        dict(
            video_id='v',
            timestamp=frame,
            pred_instances=dict(bboxes=np.array([first, good]), scores=scores),
        )
        for frame, first in ((1, far), (2, good), (3, good))
    ]


@pytest.mark.parametrize('logged', [True, False])
def test_two_ranks_equal_one_and_leave_nothing(tmp_path, logged):
    folders = [tmp_path / name for name in ('here', 'work', 'temporary', 'values')]
    for folder in folders:
        folder.mkdir()
    here, work, temporary, values = folders
    script = SCRIPT.format(
        here=str(Path(__file__).parent), log_file=str(work / 'a.log') if logged else ''
    )
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                '-c',
                script,
                values / 'of',
                tmp_path / 'meeting',
                str(rank),
            ],
            cwd=here,
            env=tool_environment(
                TMPDIR=str(temporary),
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    expected = []
    for metric in metrics():
        metric.process(None, samples())
        expected.append(metric.evaluate(3))
    for rank in range(2):
        assert json.loads((values / f'of_{rank}.json').read_text()) == expected
    assert 0 < expected[0]['mAP/overall'] < 1
    assert {path.name for path in work.iterdir()} <= {'a.log', 'a_rank1.log'}
    assert not [*here.iterdir(), *temporary.iterdir()]


def test_a_folder_of_ones_own_and_one_rank_stay_as_they_are(tmp_path):
    class Count(CollectingMetric):
        default_prefix = 'count'

        def process(self, data_batch, data_samples):
            self.results += data_samples

        def compute_metrics(self, results):
            return dict(dir=self.collect_dir, n=len(results))

    metric = Count(collect_dir=str(tmp_path / 'mine'))
    metric.process(None, [1, 2])
    assert metric.evaluate(2) == {'count/dir': str(tmp_path / 'mine'), 'count/n': 2}
    metric = Count()
    metric.process(None, [1, 2])
    assert metric.evaluate(1) == {'count/dir': None, 'count/n': 1}


def test_results_may_be_looked_at_again_until_they_are_evaluated():
    for metric in metrics():
        metric.process(None, samples())
        first, second = (metric.compute_metrics(metric.results) for _ in range(2))
        assert first == second
        values = metric.evaluate(3)
        assert {name.partition('/')[2]: values[name] for name in values} == first
        assert metric.results == []


def test_an_unknown_place_to_collect_is_told_before_the_run():
    with pytest.raises(ValueError, match="collect_device='tpu' is unknown; choose"):
        TubeFrameMAPMetric('GT.pkl', collect_device='tpu')


def test_a_derived_metric_may_look_at_the_results_again():
    class Twice(FrameMAPMetric):
        def compute_metrics(self, results):
            first = super().compute_metrics(results)
            assert super().compute_metrics(results) == first
            return first

    metric, *_ = metrics()
    metric.process(None, samples())
    twice = Twice.__new__(Twice)
    twice.__dict__.update(metric.__dict__, results=list(metric.results))
    assert twice.evaluate(3) == metric.evaluate(3)
