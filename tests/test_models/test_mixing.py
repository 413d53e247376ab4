import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_up import REFERENCE, made_up_input, made_up_weight, reference

from stmixer_mm.models.decoder.mixing import AdaptiveMixing, products


def make_mixing():
    mixing = AdaptiveMixing(
        query_dims=48, in_channels=64, num_groups=4, in_points=32, out_points=128
    )
    shapes = json.loads((REFERENCE / 'adaptive_mixing.json').read_text())
    renamed = {
        name.replace('parameter_generator.0', 'weight_generator'): made_up_weight(
            name, tuple(shape)
        )
        for name, shape in shapes.items()
    }
    mixing.load_state_dict(renamed)
    return mixing


def test_released_numbers():
    samples = made_up_input('mix_x', (2, 5, 4, 32, 16))
    queries = made_up_input('mix_q', (2, 5, 48))
    with torch.no_grad():
        mixed = make_mixing()(samples, queries)
    expected = reference('adaptive_mixing')['output']
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-4)


def test_queries_mix_alone():
    mixing = make_mixing()
    samples = made_up_input('mix_x', (2, 5, 4, 32, 16))
    queries = made_up_input('mix_q', (2, 5, 48))
    with torch.no_grad():
        together = mixing(samples, queries)
        alone = mixing(samples[1:, 2:3], queries[1:, 2:3])
    torch.testing.assert_close(together[1:, 2:3], alone, rtol=1e-4, atol=1e-5)


def test_initial_mixing_is_the_same_for_all_queries():
    mixing = make_mixing()
    mixing.init_weights()
    samples = torch.randn(1, 1, 4, 32, 16).expand(1, 3, -1, -1, -1)
    queries = torch.randn(1, 3, 48)
    added = mixing(samples, queries) - queries
    torch.testing.assert_close(added[:, :1].expand_as(added), added)


@pytest.fixture(params=[True, False], ids=['convolutions', 'products'])
def library(request, monkeypatch):
    monkeypatch.setattr(products, 'prefers_convolutions', lambda _: request.param)


def made_up_linear(rows):
    return [torch.randn(*size).requires_grad_() for size in ((rows, 6), (8, 6), (8,))]


@pytest.mark.parametrize('rows', [5, 1])
def test_linear_to_parts(library, rows):
    inputs = made_up_linear(rows)
    parts = products.linear_to_parts(*inputs, 4)
    expected = F.linear(*inputs).chunk(4, dim=1)
    assert_same_values_and_gradients(parts, expected, inputs)
    with torch.no_grad():
        assert_same_values(products.linear_to_parts(*inputs, 4), expected)


def test_linear_of_parts(library):
    def product(left, right):
        return left * right

    _, weight, _ = made_up_linear(5)
    left, right = ([torch.randn(5, 3).requires_grad_() for _ in range(2)] for _ in '12')
    args = product, list(zip(left, right, strict=True)), weight, 2
    parts = [product(*each) for each in args[1]]
    expected = F.linear(torch.cat(parts, dim=1), weight)
    ours = products.linear_of_parts(*args)
    assert_same_values_and_gradients([ours], [expected], [*left, *right, weight])
    with torch.no_grad():
        assert_same_values([products.linear_of_parts(*args)], [expected])


def test_products_in_the_type_of_the_inputs():
    inputs, weight, bias = made_up_linear(5)
    half = inputs.bfloat16()
    (part, _) = parts = products.linear_to_parts(half, weight, bias, 2)
    assert part.dtype == torch.bfloat16
    out_weight = torch.randn(3, 8).requires_grad_()
    output = products.linear_of_parts(
        torch.nn.Identity(), [(part,) for part in parts], out_weight, 2
    )
    tensors = [inputs, weight, bias, out_weight]
    gradients = torch.autograd.grad(output.float().sin().sum(), tensors)
    exact = F.linear(F.linear(inputs, weight, bias), out_weight)
    expected = torch.autograd.grad(exact.sin().sum(), tensors)
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.1)
    for gradient, full in zip(gradients, expected, strict=True):
        assert gradient.dtype == torch.float32
        scale = full.abs().max().item()
        torch.testing.assert_close(gradient, full, rtol=0.1, atol=0.1 * scale)


def assert_same_values(ours, theirs):
    for our_values, their_values in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our_values, their_values, rtol=1e-5, atol=1e-5)


def assert_same_values_and_gradients(ours, theirs, inputs):
    assert_same_values(ours, theirs)
    gradients = (
        torch.autograd.grad(sum(values.sin().sum() for values in outputs), inputs)
        for outputs in (ours, theirs)
    )
    assert_same_values(*gradients)


def test_empty_batch():
    mixed = make_mixing()(torch.zeros(0, 5, 4, 32, 16), torch.zeros(0, 5, 48))
    mixed.sum().backward()
    assert mixed.shape == (0, 5, 48)
