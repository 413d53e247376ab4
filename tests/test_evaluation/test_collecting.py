"""Ranks that share the samples find what one finds, and leave nothing behind."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.logging import MMLogger
from tube_data import build, noisy

from stmixer_mm.evaluation import TubeFrameMAPMetric, VideoMAPMetric

TRUTH, SAMPLES = noisy(0)
del SAMPLES[-1]  # a sampler repeats one, so that each rank has as many


def evaluate(samples):
    values = []
    for metric_type in (TubeFrameMAPMetric, VideoMAPMetric):
        metric = build(metric_type, TRUTH)
        metric.process(None, samples)
        values.append(metric.evaluate(len(SAMPLES)))
    return values


def run_rank(rank, meeting, folder, log_file, queue):
    os.chdir(folder)
    torch.set_num_threads(1)  # threads of the parent are not here
    dist.init_process_group(
        'gloo', init_method=f'file://{meeting}', rank=rank, world_size=2
    )
    MMLogger._instance_dict.clear()
    MMLogger.get_instance('run', log_file=log_file)
    queue.put(evaluate([*SAMPLES, SAMPLES[0]][rank::2]))
    # A rank that ends with threads of the group running aborts at times.
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_equal_one_and_leave_nothing(tmp_path):
    folder, log_file = tmp_path / 'current', tmp_path / 'work' / 'a.log'
    for path in folder, log_file.parent:
        path.mkdir()
    queue = mp.get_context('fork').SimpleQueue()
    arguments = (tmp_path / 'meeting', folder, str(log_file), queue)
    # A forked rank need not import everything again.
    mp.start_processes(run_rank, arguments, nprocs=2, start_method='fork')
    expected = evaluate(SAMPLES)
    assert [queue.get(), queue.get()] == [expected, expected]
    assert 0 < expected[0]['frame_mAP/overall@0.5'] < 1
    assert [*folder.iterdir(), *log_file.parent.iterdir()] == [log_file]
