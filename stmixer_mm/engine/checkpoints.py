"""Checkpoints: reading them, and whether one fits a model and its training."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from math import isfinite
from numbers import Integral, Number
from pathlib import Path

import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.optim import (
    AmpOptimWrapper,
    OptimWrapper,
    OptimWrapperDict,
    _ParamScheduler,
)
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.optim import Optimizer

from stmixer_mm.errors import UserError, blame

LISTED_NAMES = 10


def load_checkpoint_file(path: str | Path) -> dict:
    """Load a checkpoint (a file or a URL that mmengine knows) into RAM.

    Returns:
        With ``state_dict``, also where the file has nothing else.

    Raises:
        UserError: naming the file and the remedy.
    """
    checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu', logger='silent')
    state_dict = state_dict_of(checkpoint, source=path)
    rest = checkpoint if 'state_dict' in checkpoint else {}
    return {**rest, 'state_dict': state_dict}


def load_weights(model: nn.Module, path: str | Path) -> dict:
    """Load a checkpoint, as :func:`load_checkpoint_file` returns it, into a model.

    Raises:
        UserError: it cannot be read, or is not of this model.
    """
    loaded = load_checkpoint_file(path)
    check_state(model, loaded['state_dict'], source=path)
    model.load_state_dict(loaded['state_dict'], strict=False)
    return loaded


def state_dict_of(checkpoint: object, *, source: str | Path) -> dict[str, object]:
    """The state of a loaded checkpoint, without the prefix of data parallel models.

    Some of its values may be no parameters.

    Raises:
        UserError: there are none.
    """
    state = checkpoint
    if isinstance(checkpoint, Mapping):
        state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    if not isinstance(state, Mapping) or not any(map(is_dense, state.values())):
        raise UserError(
            f'Checkpoint {source} has no parameters (neither a state dict nor a '
            'dictionary with "state_dict"); give a checkpoint of a model.'
        )
    return {str(name).removeprefix('module.'): value for name, value in state.items()}


def check_state(
    model: nn.Module,
    state_dict: Mapping[str, object],
    *,
    source: str | Path,
    allow: Sequence[str] = (),
) -> None:
    """Refuse a checkpoint whose parameters are not finite, or not those of the model.

    ``num_batches_tracked`` may be missing: BN layers saved by old releases lack it.
    Values that are not tensors, and a part that the model has as None, may be left
    over.

    Args:
        model: Wrapped (data parallel) or not.
        state_dict: As :func:`state_dict_of` returns it.
        source: Where it is from, for the message.
        allow: Regular expressions; parameters whose name contains a match may differ.

    Raises:
        UserError: one sentence with ``source``, the counts and the names.
    """
    if is_model_wrapper(model):
        model = model.module
    own, faults = model.state_dict(), {}
    for name in {**own, **state_dict}:
        fault = _compare(name, own.get(name), state_dict.get(name))
        is_off = model._modules.get(name.partition('.')[0], model) is None
        if fault and not (is_off or any(re.search(one, name) for one in allow)):
            faults.setdefault(fault, []).append(name)
    if faults:
        lists = (
            f'{len(names)} {fault}: {", ".join(names[:LISTED_NAMES])}'
            for fault, names in faults.items()
        )
        raise UserError(
            f'Checkpoint {source} does not fit the model {type(model).__name__} '
            f'({"; ".join(lists)}); use the config that it was trained with, or name '
            'what may differ in the setting default_hooks.check_checkpoint.allow.'
        )


def _compare(name: str, own: Tensor | None, saved: object) -> str | None:
    """What is wrong with a parameter of a checkpoint."""
    if own is None:
        return 'left over' if isinstance(saved, Tensor) else None
    if saved is None:
        return None if name.endswith('num_batches_tracked') else 'missing'
    shapes = tuple(getattr(saved, 'shape', ())), tuple(own.shape)
    if shapes[0] != shapes[1]:
        return f'of shape {shapes[0]} instead of {shapes[1]}'
    if not is_dense(saved) or own.is_floating_point() > saved.is_floating_point():
        return 'of another kind of numbers'
    # As the model will have them: of 8 bits, torch cannot tell, and 64 may overflow.
    return None if saved.to(own.dtype).isfinite().all() else 'not finite'


def is_dense(value: object) -> bool:
    """Whether it is a tensor as parameters are."""
    is_strided = isinstance(value, Tensor) and value.layout is torch.strided
    return is_strided and not (value.is_meta or value.is_quantized)


def check_training(runner, checkpoint: Mapping, *, source: str | Path) -> None:
    """Refuse a checkpoint from which the training of a runner cannot continue.

    Shapes and types are compared with the runner's own: a fused optimizer reads beyond
    a state that is too small.

    Raises:
        UserError: one sentence with ``source`` and what does not fit.
    """
    remedy = (
        'resume from a checkpoint of a training with this config, or start from its '
        'weights (load_from, without --resume)'
    )
    with blame(f'Checkpoint {source} cannot be resumed', remedy):
        for place in _differences_of_training(runner, checkpoint):
            raise ValueError(f'{place} does not fit')
        for scalars in checkpoint['message_hub']['log_scalars'].values():
            if isinstance(scalars, HistoryBuffer):
                scalars = deepcopy(scalars)
                scalars.update(0.0)
                scalars.mean()


def _differences_of_training(runner, checkpoint: Mapping) -> Iterator[str]:
    yield from _differences_of_wrapper(runner.optim_wrapper, checkpoint['optimizer'])
    if isinstance(schedules := runner.param_schedulers, list):
        saved = checkpoint.get('param_schedulers', ())
        for number, (state, one) in enumerate(zip(saved, schedules, strict=False)):
            if isinstance(one, _ParamScheduler):  # it has been built
                example = {key: it for key, it in vars(one).items() if key in state}
                yield from _differences(state, example, f'param_schedulers.{number}')
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    gradients = checkpoint.get('exact_resume', {}).get('gradients', {})
    info = checkpoint['message_hub']['runtime_info']
    examples = dict(
        meta=dict(epoch=Integral, iter=Integral),
        exact_resume=dict(
            steps_of_epoch=Integral,
            sampler_seed=Integral,
            gradients={
                name: one for name, one in model.named_parameters() if name in gradients
            },
        ),
        message_hub=dict(
            runtime_info={
                **{name: str for name in info if '_ckpt' in name},
                **{name: Number for name in info if name.startswith('best_score')},
                'keep_ckpt_ids': [Integral] * len(info.get('keep_ckpt_ids', ())),
            }
        ),
    )
    yield from _differences(checkpoint, examples, 'checkpoint')


def _differences_of_wrapper(wrapper: object, state: Mapping) -> Iterator[str]:
    if isinstance(wrapper, OptimWrapperDict):
        for name, one in wrapper.items():
            yield from _differences_of_wrapper(one, state[name])
    elif isinstance(wrapper, OptimWrapper):  # it has been built
        example = _example_state(wrapper.optimizer, state['param_groups'])
        if isinstance(wrapper, AmpOptimWrapper) and 'loss_scaler' in state:
            example['loss_scaler'] = wrapper.loss_scaler.state_dict()
        yield from _differences(state, example, 'optimizer')


def _example_state(optimizer: Optimizer, groups: Sequence[Mapping]) -> dict:
    """The state dict of an optimizer after a step, without data.

    States are missing if the step needs more. ``groups`` are the saved options.
    """
    twin, parameters = object.__new__(type(optimizer)), []
    one_by_one = dict(fused=False, foreach=False, capturable=False)
    vars(twin).update(vars(optimizer), state=defaultdict(dict), param_groups=[])
    for saved, own in zip(groups, optimizer.param_groups, strict=True):
        metas = [one.detach().to('meta').requires_grad_() for one in own['params']]
        for one in metas:
            one.grad = torch.empty_like(one)
        twin.param_groups.append({**saved, **one_by_one, 'params': metas})
        parameters += metas
    with suppress(Exception):  # some want to evaluate the model
        type(optimizer).step(twin)
    options = [
        {name: own[name] for name in optimizer.defaults}
        | dict(params=[Integral] * len(own['params']))
        for own in optimizer.param_groups
    ]
    state = {number: twin.state[one] for number, one in enumerate(parameters)}
    return dict(state=state, param_groups=options)


def _differences(saved: object, example: object, place: str) -> Iterator[str]:
    """Where nested values are of another kind than those of an example.

    Tensors and numbers may not be missing. A type stands for any value of it, None for
    any value at all.
    """
    if isinstance(example, Mapping) and isinstance(saved, Mapping):
        for name, one in example.items():
            if name in saved:
                yield from _differences(saved[name], one, f'{place}.{name}')
            elif isinstance(one, Tensor) or type(one) in (int, float):
                yield f'{place}.{name}'
    elif isinstance(example, list | tuple) and isinstance(saved, list | tuple):
        if len(example) != len(saved):
            yield place
        for number, pair in enumerate(zip(saved, example, strict=False)):
            yield from _differences(*pair, f'{place}.{number}')
    elif not _is_alike(saved, example):
        yield place


def _is_alike(saved: object, example: object) -> bool:
    if isinstance(example, Tensor):
        saved = torch.as_tensor(saved) if isinstance(saved, Number) else saved
        return is_dense(saved) and saved.shape == example.shape
    if is_dense(saved) and saved.numel() == 1:
        saved = saved.item()
    if isinstance(example, Number):
        is_number = isinstance(saved, Number) and isfinite(saved)
        return (is_number and saved >= min(example, 0)) or (
            isinstance(example, bool) and saved is None
        )
    if example is Integral:
        return isinstance(saved, Integral) and saved >= 0
    kind = example if isinstance(example, type) else type(example)
    return example is None or isinstance(saved, kind)
