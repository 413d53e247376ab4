import numpy as np
import pytest
import torch
from made_up import made_up_input, reference
from torch.testing import assert_close

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import box_size
from stmixer_mm.models.decoder.sampling.backends import (
    SAMPLING_BACKENDS,
    choose_backend,
)
from stmixer_mm.models.decoder.sampling.sampler import level_weights, make_sample_points

STRIDES = (4, 8, 16, 32)
# Triton's has tests of its own, which set up its interpreter.
BACKENDS = sorted(set(SAMPLING_BACKENDS) - {'triton'})
FAST_BACKENDS = sorted(set(BACKENDS) - {'grid_sample'})


def make_sampler(feats, *, backend, **sizes):
    return SAMPLING_BACKENDS[backend](feats, **sizes)


def test_released_numbers():
    expected = reference('sampling')
    offsets = made_up_input('offset', (2, 7, 4 * 32 * 3), 0.7).view(2, 7, 4, 32, 3)
    xyzr = torch.from_numpy(expected['xyzr'])
    points = make_sample_points(offsets, xyzr, box_size(xyzr))
    weights = level_weights(points[..., 2], (2 * torch.tensor(STRIDES)).log2())
    for ours, name in ((points, 'points'), (weights, 'level_weights')):
        flat = ours.flatten(2, 3)
        np.testing.assert_allclose(flat, expected[name], rtol=1e-5, atol=1e-5)
    shapes = [(2, 64, 3, 32 >> level, 40 >> level) for level in range(4)]
    feats = [
        made_up_input(f'level{level}', shape) for level, shape in enumerate(shapes)
    ]
    sampler = make_sampler(feats, strides=STRIDES, num_groups=4, backend='grid_sample')
    ours = sampler.sample_all_frames(points[..., :2], weights)[:, :, :, :, ::8]
    np.testing.assert_allclose(ours, expected['sampled'], rtol=1e-4, atol=1e-4)


def random_case(seed):
    """Feature maps and points of random sizes, with every special place in them."""
    generator = torch.Generator().manual_seed(seed)

    def between(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    batch, queries = between(1, 3), between(1, 4)
    groups, points = between(1, 3), between(1, 7)
    frames, levels, channels = between(1, 4), between(1, 4), between(1, 5) * groups
    strides = STRIDES[:levels]
    sizes = [(between(1, 9), between(1, 9)) for _ in strides]
    shape = batch, channels, frames
    feats = [torch.randn(*shape, *size, generator=generator) for size in sizes]
    z = torch.rand(batch, queries, groups, points, 1, generator=generator) * 6 + 1
    xy = torch.rand(batch, queries, groups, points, 2, generator=generator) * 60 - 15
    special = torch.tensor([[0, 0], [2, 2], [6, 10], [-1e6, 5], [1e9, -1e9], [4, 8]])
    flat = xy.view(-1, 2)
    count = min(len(flat) // 2, len(special))
    flat[:count] = special[:count].float()
    return feats, strides, groups, torch.cat((xy, z), dim=-1)


def means_and_gradients(backend, feats, strides, groups, points):
    feats = [feat.clone().requires_grad_() for feat in feats]
    points = points.clone().requires_grad_()
    sampler = make_sampler(feats, strides=strides, num_groups=groups, backend=backend)
    means = sampler(points)
    weight = torch.Generator().manual_seed(0)
    loss = sum(
        (mean * torch.randn(mean.shape, generator=weight).to(mean.device)).sum()
        for mean in means
    )
    return means, torch.autograd.grad(loss, [*feats, points])


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('backend', FAST_BACKENDS)
def test_back_ends_agree(backend, seed):
    assert_agrees_with_grid_sample(backend, random_case(seed))


def assert_agrees_with_grid_sample(backend, case):
    means, gradients = means_and_gradients(backend, *case)
    oracle_means, oracle_gradients = means_and_gradients('grid_sample', *case)
    assert_close(means, oracle_means, rtol=1e-5, atol=1e-5)
    assert_close(gradients, oracle_gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('backend', FAST_BACKENDS)
def test_back_ends_agree_on_borders_and_pixel_centres(backend):
    """Points every quarter of a cell, from outside the level to outside it."""
    feats = [torch.randn(1, 2, 2, 5, 3), torch.randn(1, 2, 2, 3, 2)]
    x, y = torch.arange(-2.0, 3 * 4 + 3), torch.arange(-2.0, 5 * 4 + 3)
    points = torch.cartesian_prod(x, y, torch.tensor([3.3]))[None, None, None]
    assert_agrees_with_grid_sample(backend, (feats, STRIDES[:2], 1, points))


@pytest.mark.parametrize('backend', BACKENDS)
def test_calls_and_backward_passes_do_not_mix(backend):
    """Two calls of one sampler, passes that stop early, a graph that is used twice."""
    feats, strides, groups, points = random_case(4)
    for tensor in *feats, points:
        tensor.requires_grad_()
    shifted = (points + 0.7).detach()
    sizes = dict(strides=strides, num_groups=groups, backend=backend)

    def loss(sampler, points):
        return sum(mean.sin().sum() for mean in sampler(points))

    alone = [
        torch.autograd.grad(loss(make_sampler(feats, **sizes), locations), feats)
        for locations in (points, shifted)
    ]
    sampler = make_sampler(feats, **sizes)
    first, second = loss(sampler, points), loss(sampler, shifted)
    torch.autograd.grad(first, points, retain_graph=True)  # never reaches the maps
    for _ in range(2):
        together = torch.autograd.grad(first + second, feats, retain_graph=True)
        expected = tuple(map(sum, zip(*alone, strict=True)))
        assert_close(together, expected, rtol=1e-4, atol=1e-5)
    second_alone = torch.autograd.grad(second, feats)
    assert_close(second_alone, alone[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_tables_under_autocast(dtype):
    case = random_case(6)
    exact, exact_gradients = means_and_gradients('embedding_bag', *case)
    with torch.autocast('cpu', dtype=dtype):
        means, gradients = means_and_gradients('embedding_bag', *case)
    for mean, expected in zip(means, exact, strict=True):
        assert_close(mean, expected.to(dtype), rtol=0.03, atol=0.03)
    for gradient, expected in zip(gradients, exact_gradients, strict=True):
        scale = expected.abs().max().item()
        assert_close(gradient, expected, rtol=0.05, atol=0.05 * scale)


def test_the_device_chooses_where_the_config_leaves_it_open(monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    cpu = torch.device('cpu')
    assert choose_backend('auto', cpu) == 'embedding_bag'
    assert choose_backend('auto', torch.device('meta')) == 'grid_means'
    assert choose_backend('grid_means', cpu) == 'grid_means'
    with pytest.raises(UserError):
        choose_backend('triton', cpu)  # only with its interpreter


@pytest.mark.parametrize('backend', BACKENDS)
def test_empty_batch(backend):
    feats = [torch.zeros(0, 8, 2, 4, 4)]
    sampler = make_sampler(feats, strides=(4,), num_groups=2, backend=backend)
    means = sampler(torch.zeros(0, 5, 2, 3, 3))
    assert [mean.shape for mean in means] == [(0, 5, 2, 3, 4), (0, 5, 2, 2, 4)]


@pytest.mark.parametrize('backend', BACKENDS)
def test_layout_and_padding_change_nothing(backend):
    feats, strides, groups, points = random_case(7)
    sizes = dict(strides=strides, num_groups=groups, backend=backend)
    expected = make_sampler(feats, **sizes)(points)
    strided = [feat.transpose(3, 4).contiguous().transpose(3, 4) for feat in feats]
    points_strided = points.transpose(1, 2).contiguous().transpose(1, 2)
    assert_close(make_sampler(strided, **sizes)(points_strided), expected)
    padded = [torch.nn.functional.pad(feat, (0, 3, 0, 2)) for feat in feats]
    assert_close(make_sampler(padded, **sizes)(points), expected, rtol=1e-4, atol=1e-5)
