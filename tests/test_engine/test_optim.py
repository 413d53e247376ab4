import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


def test_bfloat16_trains_parameters_of_32_bits():
    model = nn.Linear(2, 1)
    weight = model.weight.clone()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(dict(type='BFloat16OptimWrapper', optimizer=sgd))
    with wrapper.optim_context(model):
        outputs = model(torch.ones(3, 2))
    assert outputs.dtype is torch.bfloat16
    wrapper.update_params(outputs.float().sum())
    torch.testing.assert_close(model.weight, weight - 0.3)  # of the same type
