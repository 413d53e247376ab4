"""Matrix products and parameters of each part of a model."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stmixer_mm.errors import blame


class PartCount(NamedTuple):
    """Costs of a part of a model; a multiply-add is two FLOPs."""

    part: str
    flops: int
    parameters: int
    trainable: int


def count_parts(model: nn.Module, data: dict) -> list[PartCount]:
    """A row for each child of a model, and one of the total.

    FLOPs are those of convolutions and matrix products in a prediction; sampling
    (``embedding_bag``, ``grid_sample``), norms, activations and pooling are not counted.

    Args:
        model: Of a host or of this package.
        data: A batch from its data preprocessor.

    Raises:
        UserError: the model cannot take the batch.
    """
    size = 'x'.join(map(str, data['inputs'].shape[-3:]))
    subject = f'{type(model).__name__} cannot take a clip of {size}'
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # The counter has no formula for the fused kernels of a CPU.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            blame(subject, 'give a --shape T H W that it can'),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping=onednn_flops()) as counter,
        ):
            model(**data, mode='predict')
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    counts = {name: sum(ops.values()) for name, ops in counter.flop_counts.items()}
    root = type(model).__name__
    rows = [
        PartCount(name, _flops_of(child, f'{root}.{name}', counts), *_sizes(child))
        for name, child in model.named_children()
        if name != 'data_preprocessor'
    ]
    return [*rows, PartCount('total', counter.get_total_flops(), *_sizes(model))]


def _flops_of(module: nn.Module, name: str, counts: Mapping[str, int]) -> int:
    """The counter knows only modules of which ``forward`` was called."""
    if name in counts:
        return counts[name]
    return sum(
        _flops_of(child, f'{name}.{child_name}', counts)
        for child_name, child in module.named_children()
    )


def _sizes(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return sum(map(torch.numel, parameters)), sum(map(torch.numel, trained))


def onednn_flops() -> dict:
    """The formula for :func:`.onednn_linear` that ``FlopCounterMode`` lacks."""

    def flops(inputs, weight, *args, **kwargs):  # shapes
        return 2 * inputs[0] * inputs[1] * weight[0]

    has = torch.backends.mkldnn.is_available()
    return {torch.ops.mkldnn._linear_pointwise: flops} if has else {}
