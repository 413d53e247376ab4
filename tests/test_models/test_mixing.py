"""Adaptive mixing: the literal formulation, and the same in chunks."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from made_up import made_up_checkpoint, made_up_input, reference
from torch.testing import assert_close

from stmixer_mm.models import precision
from stmixer_mm.models.decoder.mixing.adaptive_mixing import AdaptiveMixing

MIXING_BACKENDS = ['literal', 'chunks']


def make_mixing(backend='auto'):
    sizes = dict(query_dims=48, in_channels=64, num_groups=4, num_samples=32)
    mixing = AdaptiveMixing(**sizes, out_samples=128, backend=backend)
    weights = {
        name.replace('parameter_generator.0', 'weight_generator'): weight
        for name, weight in made_up_checkpoint('adaptive_mixing').items()
    }
    mixing.load_state_dict(weights)
    return mixing


@pytest.mark.parametrize('backend', MIXING_BACKENDS)
def test_released_numbers_for_each_query_alone(backend):
    mixing = make_mixing(backend)
    samples = made_up_input('mix_x', (2, 5, 4, 32, 16))
    queries = made_up_input('mix_q', (2, 5, 48))
    with torch.no_grad():
        mixed = mixing(samples, queries)
        alone = mixing(samples[1:, 2:3], queries[1:, 2:3])
    expected = reference('adaptive_mixing')['output']
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-4)
    assert_close(mixed[1:, 2:3], alone, rtol=1e-4, atol=1e-5)


@pytest.fixture(params=[True, False], ids=['oneDNN', 'PyTorch'])
def library(request, monkeypatch):
    monkeypatch.setattr(precision, 'prefers_onednn', lambda _: request.param)


def values_and_gradients(mixing, samples, queries):
    leaves = [samples.requires_grad_(), queries.requires_grad_(), *mixing.parameters()]
    mixed = mixing(samples, queries)
    weights = torch.linspace(-1, 1, mixed.numel()).view_as(mixed)
    return mixed, torch.autograd.grad((mixed * weights).sum(), leaves)


@pytest.mark.parametrize('batch, num_queries', [(2, 5), (1, 1)])
def test_chunks_equal_the_literal_formulation(library, batch, num_queries):
    samples = torch.randn(batch, num_queries, 4, 32, 16)
    queries = torch.randn(batch, num_queries, 48)
    mixed, gradients = values_and_gradients(make_mixing('chunks'), samples, queries)
    literal, expected = values_and_gradients(make_mixing('literal'), samples, queries)
    assert_close(mixed, literal, rtol=1e-5, atol=1e-5)
    assert_close(gradients, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        alone = make_mixing('chunks')(samples, queries)
    assert_close(alone, mixed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('backend', ['auto', 'literal'])
@torch.no_grad()
def test_packed_weights_mix_the_same(backend):
    samples, queries = torch.randn(2, 5, 4, 32, 16), torch.randn(2, 5, 48)
    mixing = make_mixing(backend)
    expected = mixing(samples, queries)
    mixing.pack()
    assert [*mixing.parameters()] == [
        mixing.weight_generator.bias,
        mixing.out_proj.bias,
    ]
    compiled = torch.compile(deepcopy(mixing), backend='eager')
    for mixed in mixing(samples, queries), compiled(samples, queries):
        assert_close(mixed, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('backend', MIXING_BACKENDS)
def test_empty_batch(backend):
    mixed = make_mixing(backend)(torch.zeros(0, 5, 4, 32, 16), torch.zeros(0, 5, 48))
    mixed.sum().backward()
    assert mixed.shape == (0, 5, 48)
