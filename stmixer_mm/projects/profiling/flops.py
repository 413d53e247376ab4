"""Matrix products and parameters of each part of a model."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stmixer_mm.compat import onednn_flops
from stmixer_mm.errors import blame
from stmixer_mm.projects.profiling.meter import Meter, watch_children


class PartCount(NamedTuple):
    """What a part of a model costs; a multiply-add is two FLOPs."""

    part: str
    flops: int
    parameters: int
    trainable: int


def count_flops(model: nn.Module, data: dict) -> dict[str, int]:
    """FLOPs of convolutions and matrix products in a prediction, per child.

    A multiply-add is two. Attention is counted as its two products, whatever kernel
    serves it; sampling (``embedding_bag``, ``grid_sample``), norms, activations and
    pooling are not counted. The model is of no other use afterwards.

    Args:
        model: A host's model or ours.
        data: What its data preprocessor makes of a batch.

    Raises:
        UserError: the model cannot take the batch.
    """
    size = 'x'.join(map(str, data['inputs'].shape[-3:]))
    subject = f'{type(model).__name__} cannot take a clip of {size}'
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # The counter knows no formula for the fused kernels of a CPU.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            blame(subject, 'give a --shape T H W that it can'),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping=onednn_flops()) as counter,
        ):
            meter = Meter(counter.get_total_flops)
            watch_children(meter, model)
            with meter.part('other'):
                model(**data, mode='predict')
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return meter.take()


def count_parts(model: nn.Module, data: dict) -> list[PartCount]:
    """A row per child of the model, and one of the total."""
    flops = count_flops(model, data)
    rows = [
        PartCount(name, flops.get(name, 0), *_count_parameters(child))
        for name, child in model.named_children()
        if name != 'data_preprocessor'
    ]
    total = PartCount('total', sum(flops.values()), *_count_parameters(model))
    rest = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    rest = [whole - part for whole, part in zip(total[1:], rest, strict=True)]
    if any(rest):
        rows.append(PartCount('other', *rest))
    return [*rows, total]


def _count_parameters(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return sum(map(torch.numel, parameters)), sum(map(torch.numel, trained))
