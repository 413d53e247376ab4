"""Laws of the other tests, with the back ends that run on a GPU."""

import pytest
import test_sampling as laws
import tiny_decoder as decoders
import torch
from torch.testing import assert_close

from stmixer_mm.models.decoder.sampling.backends import (
    SAMPLING_BACKENDS,
    choose_backend,
)

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='there is no GPU that torch can use'
)
GPU = torch.device('cuda')


@pytest.fixture(params=sorted(SAMPLING_BACKENDS))
def backend(request):
    if not SAMPLING_BACKENDS[request.param].is_available(GPU):
        pytest.skip(f'{request.param} does not run on this GPU')
    return request.param


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


@pytest.mark.parametrize('seed', range(8))
def test_back_ends_agree_with_the_oracle_on_the_cpu(backend, seed):
    feats, strides, groups, points = laws.random_case(seed)
    on_gpu = [feat.to(GPU) for feat in feats], strides, groups, points.to(GPU)
    ours = laws.means_and_gradients(backend, *on_gpu)
    oracles = laws.means_and_gradients('grid_sample', feats, strides, groups, points)
    for values, expected, tolerance in zip(ours, oracles, (1e-5, 1e-4), strict=True):
        tolerances = dict(rtol=tolerance, atol=tolerance)
        assert_close(values, expected, **tolerances, check_device=False)


@pytest.mark.parametrize('compiled', [False, dict(fullgraph=True)])
@decoders.each_kind
def test_decoder_equals_the_one_on_the_cpu(kind, backend, compiled):
    cpu = decoders.make_decoder(sampling_backend='grid_sample', **kind)
    gpu = decoders.make_decoder(
        sampling_backend=backend, compile_stages=compiled, **kind
    )
    gpu.load_state_dict(cpu.state_dict())
    feats = decoders.made_up_feats(cpu)
    feats_gpu = [feat.detach().to(GPU).requires_grad_() for feat in feats]
    outputs, expected = decoders.run(gpu.to(GPU), feats_gpu), decoders.run(cpu, feats)
    decoders.assert_all_close([out.cpu() for out in outputs], expected, 1e-4)
    gradients = torch.autograd.grad(sum(out.sum() for out in outputs), feats_gpu)
    expected = torch.autograd.grad(sum(out.sum() for out in expected), feats)
    decoders.assert_all_close([grad.cpu() for grad in gradients], expected, 1e-3)


def test_the_fused_kernel_is_chosen_where_it_runs():
    triton = SAMPLING_BACKENDS['triton'].is_available(GPU)
    assert choose_backend('auto', GPU) == ('triton' if triton else 'grid_means')
