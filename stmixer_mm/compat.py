"""Every work-around for the host stack, and nothing else.

``stmixer_mm`` imports this module before anything else of its own. So work-arounds that
act on import do so even where the host's tools import us through ``custom_imports``.
Each one says why it is there and when it can go.
"""

import atexit
import gc
import os
import pickle
import re
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from threading import RLock
from urllib.parse import urlparse


def _stand_in_for_missing_drn() -> None:
    """Let ``mmaction.models`` import although the wheel lacks one localizer.

    The mmaction2 1.2.0 wheel does not hold ``mmaction/models/localizers/drn``
    (open-mmlab/mmaction2#2714). Can go with the first release that does.
    """
    import mmaction

    if not Path(mmaction.__path__[0], 'models', 'localizers', 'drn').is_dir():
        name = 'mmaction.models.localizers.drn'
        package, module = types.ModuleType(name), types.ModuleType(f'{name}.drn')
        module.DRN = None
        sys.modules.update({name: package, module.__name__: module})


def _skip_multimodal_models() -> None:
    """Keep ``mmaction.models.multimodal`` from importing a newer transformers.

    mmaction2 1.2.0 imports names from ``transformers.modeling_utils`` that later
    versions moved to ``transformers.pytorch_utils``. Can go when the host follows.
    """
    from mmaction.utils import dependency

    dependency.WITH_MULTIMODAL = False


def _allow_mmengine_checkpoints() -> None:
    """Let ``weights_only=True`` read what mmengine itself writes into a checkpoint.

    mmengine 0.10.7 writes a message hub and numpy scalars (open-mmlab/mmengine#1655).
    Only those types are allowed. Can go with the first mmengine release that allows
    them itself.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    add_safe_globals = getattr(torch.serialization, 'add_safe_globals', None)
    if add_safe_globals is None:  # torch < 2.4
        return

    def statistic(owner: type, name: str):
        # All that a HistoryBuffer needs of getattr, which is not safe in itself.
        if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
            return getattr(HistoryBuffer, name)
        raise ValueError(f'The checkpoint asks for {name} of {owner}; it is not safe.')

    def named(function, module: str, name: str):
        def call(*args):
            return function(*args)

        call.__module__, call.__qualname__ = module, name
        return call

    multiarray = (getattr(np, '_core', None) or np.core).multiarray
    scalar_dtypes = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)
    add_safe_globals(
        [
            HistoryBuffer,
            # How pickle writes down the methods that a HistoryBuffer refers to.
            named(statistic, 'builtins', 'getattr'),
            np.ndarray,
            np.dtype,
            *{type(np.dtype(scalar)) for scalar in scalar_dtypes},
            *(
                named(getattr(multiarray, name), f'numpy.{core}.multiarray', name)
                for core in ('core', '_core')  # numpy < 2 and later
                for name in ('_reconstruct', 'scalar')
            ),
        ]
    )


def _load_weights_only() -> None:
    """Let mmengine load checkpoints without their code, into RAM, or say why it cannot.

    mmengine 0.10.7 leaves that to torch. Torch runs code from a checkpoint before 2.6,
    under TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD and from a URL, and looks for the GPU that
    the weights were on. Can go when mmengine sets ``weights_only``.
    """
    import torch
    from mmengine.runner import CheckpointLoader, checkpoint

    from stmixer_mm.errors import UserError, blame

    load_url, load_checkpoint = checkpoint.load_url, CheckpointLoader.load_checkpoint
    lock = RLock()  # because all threads share torch.load

    def load_any(filename, map_location=None, logger='current'):
        problem = f'Checkpoint {filename} cannot be read'

        def load_weights(file, *args, **kwargs):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')  # an error says it
                    return load(file, map_location='cpu', weights_only=True)
            # KeyError: from what is not a pickle at all.
            except (KeyError, pickle.UnpicklingError) as error:
                raise UserError(
                    f'{problem}: it is not a PyTorch checkpoint, or holds Python '
                    'objects, which could run code; if you trust it, save its state '
                    'dict alone.'
                ) from error

        with lock, blame(problem, 'give a whole PyTorch checkpoint'):
            load, torch.load = torch.load, load_weights
            try:
                return load_checkpoint(filename, map_location, logger)
            except KeyError as error:
                raise UserError(
                    f'Checkpoint {filename}: there is no model {error}; correct its '
                    'name or give a file.'
                ) from error
            finally:
                torch.load = load

    def fetch(url, *args, **kwargs):
        name = Path(urlparse(url).path).name
        with blame(
            f'{url} cannot be fetched',
            f'fetch it elsewhere and put it at {torch.hub.get_dir()}/checkpoints/{name}, '
            'or name a file where the command line or the config names the URL, as in '
            '--cfg-options model.init_cfg.checkpoint=FILE',
        ):
            return load_url(url, *args, **kwargs)

    checkpoint.load_url = fetch
    CheckpointLoader.load_checkpoint = staticmethod(load_any)


def _write_last_checkpoint_whole() -> None:
    """Let mmengine write ``last_checkpoint`` under another name, then rename it.

    ``CheckpointHook`` (0.10.7) writes in place, so that a kill or a full disk leaves
    an empty file. Can go when it does not.
    """
    from mmengine.hooks import checkpoint_hook

    from stmixer_mm.files import open_atomically

    checkpoint_hook.open = open_atomically


def find_latest_checkpoint(path: str | Path) -> str | None:
    """The last checkpoint of a work dir as it is now; None if there is none.

    mmengine 0.10.7 takes the absolute path in ``last_checkpoint``, which is wrong in a
    folder that was moved or copied, or is another run's. Can go when it looks beside
    ``last_checkpoint``. Raises ``UserError`` where that names no checkpoint.
    """
    from stmixer_mm.errors import UserError, blame

    note, name = Path(path, 'last_checkpoint'), ''
    remedy = 'give the checkpoint to go on from, as in --resume FILE'
    if note.exists():
        with blame(f'{note} cannot be read', remedy):
            name = note.read_text().strip()
    if not name:  # a run that is killed at its first checkpoint leaves it so
        steps = {
            int(match[1]): str(file)
            for file in Path(path).glob('*.pth')
            if (match := re.fullmatch(r'(?:epoch|iter)_(\d+)', file.stem))
        }
        return steps[max(steps)] if steps else None
    here = Path(path, Path(name).name)
    if os.path.exists(here):
        return str(here)
    if os.path.exists(name) or ':' in name:
        return name
    raise UserError(f'{note} names {name[:200]!r}, which does not exist; {remedy}.')


def _resume_in_the_work_dir() -> None:
    """Let mmengine's runners resume by :func:`find_latest_checkpoint`."""
    from mmengine import runner

    for module in (runner, runner.checkpoint, runner.runner, runner._flexible_runner):
        module.find_latest_checkpoint = find_latest_checkpoint


def _keep_initialisation_out_of_terminals() -> None:
    """Let mmengine write how parameters are initialised to log files only.

    Without a file, as in inference, ``BaseModule`` (0.10.7) logs three lines for each
    parameter. Can go when it does not.
    """
    from logging import FileHandler

    from mmengine.logging import MMLogger
    from mmengine.model import BaseModule

    dump = BaseModule._dump_init_info

    def dump_to_files(self) -> None:
        handlers = MMLogger.get_current_instance().handlers
        if any(isinstance(handler, FileHandler) for handler in handlers):
            dump(self)

    BaseModule._dump_init_info = dump_to_files


def autocast_dtype(device_type: str):
    """The type that autocast casts to on a device, None where it is off.

    torch < 2.4 has other functions for each type of device. Can go when we drop it.
    """
    import torch

    if hasattr(torch, 'get_autocast_dtype'):
        is_on = torch.is_autocast_enabled(device_type)
        return torch.get_autocast_dtype(device_type) if is_on else None
    if device_type == 'cpu':
        return (
            torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
        )
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def stack_numbers(values, *, dtype, device):
    """``torch.tensor(values)`` that leaves sizes dynamic in ``torch.export``.

    ``torch.tensor`` fixes them to those of the traced clip (torch 2.13).
    """
    import torch

    return torch.stack(
        [torch.full((), each, dtype=dtype, device=device) for each in values]
    )


def multiplies_bfloat16(device_type: str) -> bool:
    """Whether the devices of a type multiply bfloat16 themselves.

    For CPUs torch 2.1 has a private function. Can go when a public one replaces that.
    """
    import torch

    if device_type == 'cuda':
        return torch.cuda.get_device_capability() >= (8, 0)
    return device_type == 'cpu' and torch.cpu._is_avx512_bf16_supported()


def exact_convolutions(device_type: str) -> AbstractContextManager:
    """Keep 3-D convolutions out of bf16 autocast on a CPU where it is of no use.

    With gradients: oneDNN (torch 2.13, AVX-512 with and without bf16 instructions)
    leaves NaN in weight gradients of bf16 3-D convolutions at random, about every
    second time for 64 channels. Without them: where the CPU has to emulate bf16.
    Related: pytorch/pytorch#169688. Can go with the first torch whose gradients are
    finite.
    """
    import torch

    of_no_use = (
        device_type == 'cpu'
        and autocast_dtype('cpu') == torch.bfloat16
        and (torch.is_grad_enabled() or not multiplies_bfloat16('cpu'))
    )
    return torch.autocast('cpu', enabled=False) if of_no_use else nullcontext()


@contextmanager
def processes_on_cpus(cfg) -> Iterator[None]:
    """Let mmengine build the runner of a config with a launcher, without accelerators.

    mmengine 0.10.7 chooses a GPU in each process whatever the back end, and gives its
    number to DistributedDataParallel, which refuses it. Can go when it does neither.
    """
    import torch
    from mmengine.device import get_device

    if get_device() != 'cpu' or cfg.get('launcher', 'none') == 'none':
        yield
        return
    cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        **(cfg.get('model_wrapper_cfg') or {}),
        'device_ids': None,
    }
    set_device = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        yield
    finally:
        torch.cuda.set_device = set_device
    atexit.register(_leave_group)


def _leave_group() -> None:
    """End the threads of a process group of gloo before Python ends.

    They may hold tensors, whose release aborts a process that is about to end
    (pytorch/pytorch#179291). The group is freed only with all that refers to it: the
    wrapped model, which is part of mmengine's cycles. Can go when torch does this.
    """
    import torch

    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def fuses_optimizers() -> bool:
    """Whether PyTorch has fused optimisers for CPUs too: from 2.4 on."""
    import torch
    from mmengine.utils import digit_version

    return digit_version(torch.__version__) >= digit_version('2.4')


def prefers_onednn(inputs) -> bool:
    """Whether a matrix product is faster in oneDNN, which PyTorch does not check.

    PyTorch hands float32 products on x86 to MKL, which on AMD's processors reaches
    about half of oneDNN's speed (torch 2.13, MKL 2024.2, Zen 5). Can go when PyTorch
    chooses by processor.
    """
    import torch

    return (
        inputs.device.type == 'cpu'
        and inputs.dtype == torch.float32
        and inputs.numel() > 0
        and packs_linears()
        and _has_amd_processor()
    )


def onednn_linear(inputs, weight, bias=None):
    """``F.linear`` by the operator that ``torch.compile`` turns linear layers into.

    Matrices that are contiguous neither by rows nor by columns are copied: for those
    oneDNN has only its reference implementation.
    """
    import torch

    inputs, weight = (
        each if each.is_contiguous() or each.t().is_contiguous() else each.contiguous()
        for each in (inputs, weight)
    )
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, 'none', [], '')


def packs_linears() -> bool:
    """Whether PyTorch has oneDNN for x86, by which :func:`onednn_linear` multiplies."""
    import torch

    return torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()


def pack_linear(weight):
    """The weight of a linear layer in oneDNN's own layout, for :func:`onednn_linear`."""
    import torch

    return torch.ops.mkldnn._reorder_linear_weight(weight)


def onednn_flops() -> dict:
    """The formula for :func:`onednn_linear` that ``FlopCounterMode`` lacks."""
    import torch

    def flops(inputs, weight, *args, **kwargs):  # shapes
        return 2 * inputs[0] * inputs[1] * weight[0]

    has = torch.backends.mkldnn.is_available()
    return {torch.ops.mkldnn._linear_pointwise: flops} if has else {}


@cache
def _has_amd_processor() -> bool:
    try:
        return 'AuthenticAMD' in Path('/proc/cpuinfo').read_text()
    except OSError:
        return False


_stand_in_for_missing_drn()
_skip_multimodal_models()
_allow_mmengine_checkpoints()
_load_weights_only()
_write_last_checkpoint_whole()
_resume_in_the_work_dir()
_keep_initialisation_out_of_terminals()
