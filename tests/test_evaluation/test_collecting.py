"""Ranks that share the samples find what one finds, and leave nothing behind."""

import os
import tempfile

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.logging import MMLogger
from tube_data import build, ground_truth, still

from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric


def metrics():
    tubes = {0: [still(1, 3, [0, 0, 80, 100])], 1: [still(1, 1, [100, 0, 180, 100])]}
    lines = [f'v,{frame},0,0,0.4,1,1,0\n' for frame in (1, 2, 3)]
    with tempfile.NamedTemporaryFile('w', suffix='.csv') as file:
        file.write(''.join(lines) + 'v,1,0.5,0,0.9,1,2,0\n')
        file.flush()
        frames = FrameMAPMetric(file.name, num_classes=3)
    truth = ground_truth({'v': tubes}, labels=['sit', 'run'], nframes=3)
    return frames, build(TubeFrameMAPMetric, truth)


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


def run_rank(rank, meeting, here, log_file, queue):
    os.chdir(here)
    torch.set_num_threads(1)  # threads of the parent are not here
    dist.init_process_group(
        'gloo', init_method=f'file://{meeting}', rank=rank, world_size=2
    )
    MMLogger._instance_dict.clear()
    MMLogger.get_instance('run', log_file=log_file)
    found = []
    for metric in metrics():
        # A sampler pads three samples to two for each rank.
        metric.process(None, [samples()[i] for i in ([0, 2], [1, 0])[rank]])
        found.append(metric.evaluate(3))
    queue.put(found)
    # A rank that ends with threads of the group running aborts at times.
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_equal_one_and_leave_nothing(tmp_path):
    here, work = tmp_path / 'here', tmp_path / 'work'
    here.mkdir()
    work.mkdir()
    context = mp.get_context('fork')  # a rank need not import everything again
    queue = context.SimpleQueue()
    arguments = (tmp_path / 'meeting', here, str(work / 'a.log'), queue)
    mp.start_processes(run_rank, arguments, nprocs=2, start_method='fork')
    expected = []
    for metric in metrics():
        metric.process(None, samples())
        expected.append(metric.evaluate(3))
    assert [queue.get(), queue.get()] == [expected, expected]
    assert 0 < expected[0]['mAP/overall'] < 1
    assert [path.name for path in work.iterdir()] == ['a.log']
    assert not list(here.iterdir())
