import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@pytest.mark.parametrize(
    ('kind', 'dtype'),
    [('OptimWrapper', torch.float32), ('BFloat16OptimWrapper', torch.bfloat16)],
)
def test_forward_runs_in_the_wrappers_precision(kind, dtype):
    model = nn.Linear(2, 1)
    before = model.weight.clone()
    wrapper = OPTIM_WRAPPERS.build(
        dict(type=kind, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    )
    with wrapper.optim_context(model):
        outputs = model(torch.ones(3, 2))
    assert outputs.dtype is dtype
    wrapper.update_params(outputs.float().sum())
    assert model.weight.dtype is torch.float32
    torch.testing.assert_close(model.weight, before - 0.3)
