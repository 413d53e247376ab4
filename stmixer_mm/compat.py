"""Every work-around for the host stack, and nothing else.

``stmixer_mm`` imports this module before anything else of its own. So work-arounds that
act on import do so even where the host's tools import us through ``custom_imports``.
Each states its reason and when it can go.
"""

import atexit
import gc
import json
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import mmcv
import numpy as np
import torch
from mmengine import runner
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import get_device
from mmengine.hooks import checkpoint_hook
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, checkpoint
from mmengine.utils import digit_version
from safetensors import safe_open

from stmixer_mm.errors import blame
from stmixer_mm.files import (
    check_file,
    check_sums,
    download_timeout,
    open_atomically,
    package_folder,
)
from stmixer_mm.mmcv_operators import stand_in


def _admit_newer_mmcv() -> None:
    """Import mmdet and mmaction2 beside an mmcv that they refuse.

    mmdet 3.3.0 and mmaction2 1.2.0 want an mmcv below 2.2.0, but run on onedl-mmcv 2.3.
    Can go when they have no such limit.
    """
    version = mmcv.__version__
    if digit_version(version) >= digit_version('2.2.0'):
        version = '2.1.99'
    with patch.object(mmcv, '__version__', version):
        import mmaction  # noqa: F401
        import mmdet  # noqa: F401


def _restore_names_of_numpy() -> None:
    """Give back names that numpy 2 lacks and the hosts use.

    Among them are mmaction2's ``AVAMetric`` and pose transforms (1.2.0), and
    mmdet's video metrics (3.3.0). Can go when the hosts follow.
    """
    names = dict(NAN=np.nan, Inf=np.inf, float=float, in1d=np.isin)
    for name, value in names.items():
        vars(np).setdefault(name, value)
    if 'trapz' not in vars(np):
        np.trapz = np.trapezoid


def _stand_in_for_missing_drn() -> None:
    """Let ``mmaction.models`` import although the wheel lacks one localizer.

    The mmaction2 1.2.0 wheel lacks ``mmaction/models/localizers/drn``
    (open-mmlab/mmaction2#2714). Can go with the first release that has it.
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

    def statistic(owner: type, name: str):
        # All that a HistoryBuffer needs of getattr, which is not safe in itself.
        if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
            return getattr(HistoryBuffer, name)
        raise ValueError(f'The checkpoint asks for {name} of {owner}; it is not safe.')

    multiarray = (getattr(np, '_core', None) or np.core).multiarray
    scalars = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            # How pickle writes down the methods that a HistoryBuffer refers to.
            (statistic, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            *{type(np.dtype(scalar)) for scalar in scalars},
            *(
                (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
                for core in ('core', '_core')  # numpy < 2 and later
                for name in ('_reconstruct', 'scalar')
            ),
        ]
    )


def read_safetensors(file: str | Path) -> dict[str, dict]:
    """A file of :func:`.write_weights` as mmengine's checkpoints are, in float32."""
    with safe_open(str(file), 'pt') as weights:
        names = weights.keys()
        state_dict = {name: weights.get_tensor(name).float() for name in names}
        classes = json.loads(weights.metadata()['classes'])
    meta = dict(dataset_meta=dict(classes=tuple(classes)))
    return dict(state_dict=state_dict, meta=meta)


def _load_weights_only() -> None:
    """Let mmengine load whole checkpoints only, without their code, and name the file.

    Unless told not to, torch 2.13 runs code from the checkpoint of a URL, and from a file
    if TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set. onedl-mmengine 0.10.12 runs it where
    reading without it fails, and afterwards forgets types that were allowed before. Can
    go when mmengine (0.10.7) sets ``weights_only``, and names the checkpoint that cannot
    be read.
    """
    load_url, load_checkpoint = checkpoint.load_url, CheckpointLoader.load_checkpoint

    def fetch(url, *args, **kwargs):
        folder = f'{torch.hub.get_dir()}/checkpoints'
        remedy = f'fetch it elsewhere into {folder}'
        with blame(f'{url} cannot be fetched', remedy), download_timeout():
            return load_url(url, *args, weights_only=True, **kwargs)

    def load_any(filename, map_location=None, logger='current'):
        remedy = 'give a whole PyTorch checkpoint of weights, without Python objects'
        if earlier := _find_earlier_checkpoint(filename):
            remedy += f', such as the one before it, {earlier}'
        with blame(f'Checkpoint {filename} cannot be read', remedy):
            if str(filename).endswith('.safetensors'):
                return read_safetensors(filename)
            check_sums(filename)
            local = Path(filename).expanduser()
            if local.exists():
                check_file(local)  # a pipe would be waited for
                return torch.load(local, map_location, weights_only=True)
            return load_checkpoint(filename, map_location, logger)

    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = partial(torch.load, weights_only=True)
    checkpoint.load_url = fetch
    CheckpointLoader.load_checkpoint = staticmethod(load_any)


def _write_last_checkpoint_whole() -> None:
    """Let mmengine write ``last_checkpoint`` under another name, then rename it.

    ``CheckpointHook`` (0.10.7) writes in place, so that a kill or a full disk leaves
    an empty file. Can go when it does not.
    """
    checkpoint_hook.open = open_atomically


def find_latest_checkpoint(path: str | Path) -> str | None:
    """The last checkpoint of a work dir as it is now; None if there is none.

    mmengine 0.10.7 takes the absolute path in ``last_checkpoint``, which is wrong in a
    folder that was moved or copied. Can go when it looks beside ``last_checkpoint``.
    """
    note = Path(path, 'last_checkpoint')
    name = note.read_text(errors='replace').strip() if note.exists() else ''
    for file in (Path(path, Path(name).name), Path(name)):
        if os.path.isfile(file):
            return str(file)
    # A run that is killed at its first checkpoint leaves no note.
    steps = {_step_of(file): str(file) for file in Path(path).glob('*.pth')}
    last = max(steps, default=-1)
    return steps[last] if last >= 0 else None


def _step_of(checkpoint: str | Path) -> int:
    """The epoch or iteration in a checkpoint's name; -1 if there is none."""
    match = re.fullmatch(r'(?:epoch|iter)_(\d+)', Path(checkpoint).stem)
    return int(match[1]) if match else -1


def _find_earlier_checkpoint(path: str | Path) -> Path | None:
    """The checkpoint of the same run that was saved before another one."""
    checkpoints = Path(path).parent.glob('*.pth')
    earlier = [file for file in checkpoints if -1 < _step_of(file) < _step_of(path)]
    return max(earlier, key=_step_of, default=None)


def _resume_in_the_work_dir() -> None:
    """Let mmengine's runners resume by :func:`find_latest_checkpoint`."""
    for module in (runner, runner.checkpoint, runner.runner, runner._flexible_runner):
        module.find_latest_checkpoint = find_latest_checkpoint


def _leave_out_schedules_after_the_end() -> None:
    """Let a run be shorter than the warm-up of its config.

    A schedule without ``end`` ends with the run. mmengine (0.10.7) refuses it if it
    begins there, after the warm-up. Can go when it leaves such a schedule out.
    """
    build = runner.Runner._build_param_scheduler

    def build_those_within(self, scheduler, optim_wrapper):
        schedulers = scheduler if isinstance(scheduler, list | tuple) else [scheduler]
        schedulers = [
            config for config in schedulers if not is_after_the_end(self, config)
        ]
        return build(self, schedulers, optim_wrapper)

    def is_after_the_end(self, config) -> bool:
        if not isinstance(config, dict) or 'end' in config or not config.get('begin'):
            return False
        if not isinstance(self._train_loop, runner.BaseLoop):
            return False
        in_epochs = config.get('by_epoch', True)
        return config['begin'] >= (self.max_epochs if in_epochs else self.max_iters)

    runner.Runner._build_param_scheduler = build_those_within


def _find_own_configs() -> None:
    """Let ``_base_ = 'stmixer_mm::stmixer/…'`` name a config of this package.

    mmengine (0.10.7) has a fixed list of packages and finds no editable installation.
    Can go when packages can register themselves. The scope is that of the config.
    ``list_models('stmixer_mm')`` of inferencers reads the list.
    """
    MODULE2PACKAGE['stmixer_mm'] = 'stmixer_mm'
    find = Config._get_cfg_path

    def find_any(path: str, file: str) -> tuple[str, str | None]:
        package, _, config_path = path.partition('::')
        if package == 'stmixer_mm':
            return str(package_folder() / 'configs' / config_path), None
        return find(path, file)

    Config._get_cfg_path = staticmethod(find_any)


def _shorten_logs() -> None:
    """Keep what mmengine says before the first step short enough to be read.

    It (0.10.7) logs three lines for each parameter (how it is initialised), a hundred
    on the hooks and ten on how PyTorch was compiled. Can go when it does not.
    """

    def environment() -> dict:
        info = collect_env()
        info.pop('PyTorch compiling details', None)
        return info

    collect_env = runner.runner.collect_env
    runner.runner.collect_env = environment
    runner.Runner.get_hooks_info = lambda self: ', '.join(
        type(hook).__name__ for hook in self.hooks
    )
    BaseModule._dump_init_info = lambda self: None


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The type that autocast casts to on a device, None where it is off."""
    is_on = torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if is_on else None


def constant_in_graphs(function: Callable) -> Callable:
    """``torch.compiler.assume_constant_result`` without the import of Dynamo.

    That takes a second in torch 2.13. Can go when torch marks functions without it.
    """
    function._dynamo_marked_constant = True
    return function


def stack_numbers(values, *, dtype, device):
    """``torch.tensor(values)`` that does not wait for the device.

    Graphs have kernels in place of a copy: CUDA's take none from the host, and in those
    of ``torch.export`` it would fix sizes to the traced clip's (torch 2.13).
    """
    if torch.compiler.is_compiling() or (
        torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    ):
        filled = [torch.full((), n, dtype=dtype, device=device) for n in values]
        return torch.stack(filled)
    return torch.tensor([*values], dtype=dtype).to(device, non_blocking=True)


def multiplies_bfloat16(device_type: str) -> bool:
    """True if the devices of a type multiply bfloat16 themselves.

    For CPUs torch 2.13 has a private function. Can go when a public one replaces that.
    """
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
    is_useless = (
        device_type == 'cpu'
        and autocast_dtype('cpu') == torch.bfloat16
        and (torch.is_grad_enabled() or not multiplies_bfloat16('cpu'))
    )
    return torch.autocast('cpu', enabled=False) if is_useless else nullcontext()


@contextmanager
def processes_on_cpus(cfg) -> Iterator[None]:
    """Let mmengine build the runner of a config with a launcher, without accelerators.

    mmengine 0.10.7 chooses a GPU in each process whatever the back end, and gives its
    number to DistributedDataParallel, which refuses it. Can go when it does neither.
    """
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
    with patch.object(torch.cuda, 'set_device', lambda device: None):
        yield
    atexit.register(_leave_group)


def _leave_group() -> None:
    """End the threads of a process group of gloo before Python ends.

    They may hold tensors, whose release aborts a process that is about to end
    (pytorch/pytorch#179291). The group is freed only with all that refers to it: the
    wrapped model, which is part of mmengine's cycles. Can go when torch does this.
    """
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


stand_in()
_admit_newer_mmcv()
_restore_names_of_numpy()
_stand_in_for_missing_drn()
_skip_multimodal_models()
_allow_mmengine_checkpoints()
_load_weights_only()
_write_last_checkpoint_whole()
_resume_in_the_work_dir()
_leave_out_schedules_after_the_end()
_find_own_configs()
_shorten_logs()
