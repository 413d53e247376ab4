"""Counts of kernels, waits and copies."""

import torch

from stmixer_mm.projects.profiling.launches import count_events, count_launches


def test_events_of_a_gpu_by_kind():
    events = [
        ('aten::mm', False),
        ('ampere_sgemm_128x64_nn', True),
        ('Memcpy HtoD (Pinned -> Device)', True),
        ('Memcpy DtoH (Device -> Pageable)', True),
        ('Memset (Device)', True),
        ('cudaStreamSynchronize', False),
        ('cudaDeviceSynchronize', False),
    ]
    assert count_events(events) == dict(kernels=1, waits=1, copies=1)


def test_operators_of_a_cpu_without_views():
    ones = torch.ones(2)
    counts = count_launches(lambda: (ones + ones).view(1, 2) * 2, torch.device('cpu'))
    assert counts == dict(operators=2)
