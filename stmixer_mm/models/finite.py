"""Values that are not finite, told by their samples."""

from collections.abc import Mapping, Sequence
from itertools import chain, compress

import torch
from mmaction.structures import ActionDataSample
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.structures import StageOutput


def check_finite(
    values: Mapping[str, Tensor], data_samples: Sequence[ActionDataSample]
) -> None:
    """Raise ``UserError`` for values (B, …), by name, that are NaN or infinite."""
    finite = [value.flatten(1).isfinite().all(1) for value in values.values()]
    wrong = ~torch.stack(finite).cpu()
    if wrong.any():
        samples = map(sample_name, compress(data_samples, wrong.any(0)))
        raise UserError(
            f'{", ".join(compress(values, wrong.any(1)))} of {", ".join(samples)} is '
            'NaN or infinite; check the annotation of these samples, lower the '
            'learning rate or clip gradients, and go on from the last checkpoint.'
        )


def check_losses(
    stages: Sequence[StageOutput],
    data_samples: Sequence[ActionDataSample],
    terms: Mapping[str, Tensor],
) -> None:
    """Raise ``UserError`` for what is not finite, the first stage first.

    The host waits for the device once.
    """
    values = [value.detach().flatten() for value in (*chain(*stages), *terms.values())]
    if torch.cat(values).isfinite().all():
        return
    for number, stage in enumerate(stages):
        fields = stage._asdict().items()
        named = {f'{name} of stage {number}': value for name, value in fields}
        check_finite(named, data_samples)
    size = len(data_samples), 1
    check_finite({k: value.expand(size) for k, value in terms.items()}, data_samples)


def sample_name(sample: ActionDataSample) -> str:
    """The name of a sample in messages."""
    name = sample.get('img_key') or sample.get('video_id') or 'a sample without a name'
    return f"'{name}'"
