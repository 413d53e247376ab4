"""The Triton back end, by Triton's interpreter on the CPU and by its compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import test_sampling as laws
import torch
from torch.testing import assert_close

from stmixer_mm.models.decoder.sampling import backends
from stmixer_mm.models.decoder.sampling.triton_kernel import TritonSampler

triton = pytest.importorskip('triton')


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    monkeypatch.setitem(backends.SAMPLING_BACKENDS, 'triton', TritonSampler)
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    # Made for the compiler if something imported Triton before.
    monkeypatch.setattr(triton.language, 'sum', triton.jit(triton.language.sum.fn))


def made_up_case(sizes, *, groups, points, frames, channels):
    """Maps of these sizes, and points in and around them, some on pixel centres."""
    feats = [torch.randn(1, groups * channels, frames, *size) for size in sizes]
    strides = laws.STRIDES[: len(sizes)]
    extent = torch.tensor(sizes[0]).flip(0) * strides[0]
    xy = (torch.rand(1, 1, groups, points, 2) * 1.4 - 0.2) * extent
    xy[..., ::2, :] = (xy[..., ::2, :] / 2).round() * 2
    z = torch.rand(1, 1, groups, points, 1) * 6 + 1
    return feats, strides, groups, torch.cat((xy, z), dim=-1)


@pytest.mark.parametrize('seed', [3, 4, 7])  # small cases: it is interpreted
def test_agrees_with_grid_sample(seed):
    laws.assert_agrees_with_grid_sample('triton', laws.random_case(seed))


def test_laws_of_all_back_ends():
    laws.test_empty_batch('triton')
    laws.test_layout_and_padding_change_nothing('triton')


BLOCKS_OF_POINTS_AND_CHANNELS = dict(groups=2, points=9, frames=3, channels=36)
MANY_FRAMES = dict(groups=1, points=5, frames=70, channels=17)


@pytest.mark.parametrize('sizes', [BLOCKS_OF_POINTS_AND_CHANNELS, MANY_FRAMES])
def test_sizes_that_fill_the_last_block_in_part(sizes):
    case = made_up_case([(7, 5), (3, 4)], **sizes)
    laws.assert_agrees_with_grid_sample('triton', case)


def test_kinks_at_pixel_centres_and_points_at_infinity():
    sizes = dict(groups=1, points=16, frames=2, channels=3)
    *levels, points = made_up_case([(9, 7), (3, 2), (1, 1)], **sizes)
    points[..., :2] = (points[..., :2] / 2).round() * 2
    points[..., 0, 0], points[..., 1, 1] = float('inf'), -float('inf')
    ours = laws.means_and_gradients('triton', *levels, points)
    points[points.isinf()] = 1e6  # they see nothing
    oracles = laws.means_and_gradients('grid_sample', *levels, points)
    assert_close(ours, oracles, rtol=1e-4, atol=1e-5)


def test_half_levels_are_summed_in_float32():
    dtype = torch.bfloat16
    feats, *arguments = laws.random_case(8)
    feats = [feat.to(dtype) for feat in feats]
    with torch.autocast('cpu', dtype=dtype):
        means, gradients = laws.means_and_gradients('triton', feats, *arguments)
    full = [feat.float() for feat in feats]
    oracles = laws.means_and_gradients('grid_sample', full, *arguments)
    assert_close(means, oracles[0], rtol=1e-5, atol=1e-5)
    assert_close(gradients[-1], oracles[1][-1], rtol=1e-4, atol=1e-4)
    for gradient, oracle in zip(gradients[:-1], oracles[1][:-1], strict=True):
        assert gradient.dtype == dtype
        rounding = dict(rtol=torch.finfo(dtype).eps, atol=1e-5)
        assert_close(gradient.float(), oracle, **rounding)


def test_frozen_levels_get_no_gradient():
    feats, strides, groups, points = laws.random_case(7)
    points.requires_grad_()
    gradients = []
    for backend in ('triton', 'grid_sample'):
        sampler = backends.SAMPLING_BACKENDS[backend](
            feats, strides=strides, num_groups=groups
        )
        spatial, _ = sampler(points)  # one of the means alone
        gradients += torch.autograd.grad(spatial.sin().sum(), points)
    assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_compiles_as_one_graph():
    feats, strides, groups, points = laws.random_case(8)

    def loss(points, *feats):
        sampler = TritonSampler(feats, strides=strides, num_groups=groups)
        return sum(mean.sin().sum() for mean in sampler(points))

    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    inputs = [tensor.requires_grad_() for tensor in (points, *feats)]
    eager_gradients = torch.autograd.grad(loss(*inputs), inputs)
    gradients = torch.autograd.grad(compiled(*inputs), inputs)
    assert_close(gradients, eager_gradients)


COMPILE = """
import fused_means as kernels
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

table = torch.empty(1, 4, 10, 8, 64, device='meta')
levels = torch.empty(4, 3, device='meta')
points_xy = torch.empty(1, 2, 4, 32, 2, device='meta')
for kernel, num_warps, flags in (
    (kernels._means_kernel, 2, {}),
    (kernels._gradients_kernel, 1, {'WITH_TABLE': True}),
):
    constants = kernels.tile_sizes(table, levels, points_xy, num_warps) | flags
    types = dict.fromkeys(kernel.arg_names, '*fp32') | dict(
        table='*bf16', levels='*i32', num_queries='i32', num_cells='i32'
    )
    types |= dict.fromkeys(constants, 'constexpr')
    source, target = ASTSource(kernel, types, constants), GPUTarget('cuda', 90, 32)
    compiled = triton.compile(source, target, options={'num_warps': num_warps})
    print(len(compiled.asm['cubin']))
"""


def test_kernels_compile_for_gpus(tmp_path):
    environment = os.environ | {'TRITON_CACHE_DIR': str(tmp_path)}
    del environment['TRITON_INTERPRET']
    command = [sys.executable, '-c', COMPILE]
    folder = Path(backends.__file__).parent
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout.splitlines()) == 2
