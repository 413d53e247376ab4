"""Every work-around for the host stack, and nothing else.

``stmixer_mm`` imports this module before anything else of its own, so that those that
act on import also do where the host's tools import us through ``custom_imports``.
Each one says why it is there and when it can go.
"""

import atexit
import gc
import importlib.util
import sys
import types
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path


def _stand_in_for_missing_drn() -> None:
    """Let ``mmaction.models`` import although the wheel lacks one localizer.

    The mmaction2 1.2.0 wheel does not hold ``mmaction/models/localizers/drn``
    (open-mmlab/mmaction2#2714). Can go with the first release that does.
    """
    name = 'mmaction.models.localizers.drn'
    host = importlib.util.find_spec('mmaction')
    if host is None:
        raise ImportError(
            'mmaction2 is not installed; run `make setup` in the repository of '
            'stmixer_mm, or `pip install mmaction2==1.2.0` with mmcv 2.1.0 and mmdet 3.3.0.'
        )
    (host_folder,) = host.submodule_search_locations
    if Path(host_folder, 'models', 'localizers', 'drn').is_dir() or name in sys.modules:
        return

    class DRN:
        """Stand-in for a localizer that the installed mmaction2 lacks."""

        def __init__(self, *args, **kwargs) -> None:
            raise ImportError(
                'DRN is missing from the installed mmaction2 wheel; install mmaction2 '
                'from its source repository to use it.'
            )

    package, module = types.ModuleType(name), types.ModuleType(f'{name}.drn')
    package.__path__ = []
    package.drn, module.DRN = module, DRN
    sys.modules.update({name: package, module.__name__: module})


def _skip_multimodal_models() -> None:
    """Keep ``mmaction.models.multimodal`` from importing a newer transformers.

    mmaction2 1.2.0 imports names from ``transformers.modeling_utils`` that later
    versions moved to ``transformers.pytorch_utils``. Can go when the host follows.
    """
    from mmaction.utils import dependency

    dependency.WITH_MULTIMODAL = False


def _allow_mmengine_checkpoints() -> None:
    """Let ``torch.load`` read what mmengine itself writes into a checkpoint.

    torch >= 2.6 loads with ``weights_only=True``; mmengine 0.10.7 calls a bare
    ``torch.load`` on checkpoints with a message hub and numpy scalars
    (open-mmlab/mmengine#1655). Only those types are allowed; the protection stays on.
    Can go with the first mmengine release that allows them itself.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    add_safe_globals = getattr(torch.serialization, 'add_safe_globals', None)
    if add_safe_globals is None:  # torch < 2.4 knows no such protection
        return

    def statistic(owner: type, name: str):
        # All that a HistoryBuffer needs of getattr, which is not safe in itself.
        if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
            return getattr(HistoryBuffer, name)
        raise ValueError(f'The checkpoint asks for {name} of {owner}; it is not safe.')

    # How pickle writes down the methods that a HistoryBuffer refers to.
    statistic.__module__, statistic.__name__ = 'builtins', 'getattr'
    statistic.__qualname__ = 'getattr'
    multiarray = getattr(np, '_core', None) or np.core
    scalar_dtypes = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)
    add_safe_globals(
        [
            HistoryBuffer,
            statistic,
            np.ndarray,
            np.dtype,
            multiarray.multiarray._reconstruct,
            multiarray.multiarray.scalar,
            *{type(np.dtype(scalar)) for scalar in scalar_dtypes},
        ]
    )


def autocast_dtype(device_type: str):
    """The type that autocast casts to on a device, None where it is off.

    torch < 2.4 asks differently for each type of device. Can go with its support.
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
        and (torch.is_grad_enabled() or not torch.cpu._is_avx512_bf16_supported())
    )
    return torch.autocast('cpu', enabled=False) if of_no_use else nullcontext()


def leave_group_at_exit() -> None:
    """End the threads of a process group of gloo before Python ends.

    They may hold tensors, whose release aborts a process that is about to end
    (pytorch/pytorch#179291). The group goes with all that refers to it: the wrapped
    model, which is part of mmengine's cycles. Can go when torch does so.
    """
    import torch

    def leave() -> None:
        gc.collect()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    atexit.register(leave)


def prefers_convolutions(inputs) -> bool:
    """Whether a matrix product is faster as a 1x1 convolution.

    PyTorch hands float32 products on x86 to MKL, which on AMD's processors reaches
    about half of oneDNN's speed (torch 2.13, MKL 2024.2, Zen 5); convolutions go to
    oneDNN. Can go when PyTorch chooses by processor.
    """
    import torch

    return (
        inputs.device.type == 'cpu'
        and inputs.dtype == torch.float32
        and inputs.numel() > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkl.is_available()
        and _has_amd_processor()
    )


@cache
def _has_amd_processor() -> bool:
    try:
        return 'AuthenticAMD' in Path('/proc/cpuinfo').read_text()
    except OSError:
        return False


_stand_in_for_missing_drn()
_skip_multimodal_models()
_allow_mmengine_checkpoints()
