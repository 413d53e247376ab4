"""Training and test runs from a config, also where there is no accelerator."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from mmaction.registry import RUNNERS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from torch.multiprocessing import set_sharing_strategy

from stmixer_mm.apis.config import building, check_run, load_config, merge_overrides
from stmixer_mm.apis.model_zoo import check_shipped, list_shipped
from stmixer_mm.command_line import CfgOptions
from stmixer_mm.compat import processes_on_cpus
from stmixer_mm.engine.speed import keep_freed_memory
from stmixer_mm.errors import blame
from stmixer_mm.files import lock_folder

_BUILT_LATER = {
    'build_train_loop': 'train_loop',
    'build_val_loop': 'val_loop',
    'build_test_loop': 'test_loop',
    'build_optim_wrapper': 'optim_wrapper',
    'build_param_scheduler': 'param_scheduler',
    'scale_lr': 'auto_scale_lr',
}


def build_runner(cfg: Config, mode: Literal['train', 'test'] = 'train') -> Runner:
    """Check a config and build its runner, changing it to run on a CPU if need be.

    Args:
        cfg: With ``work_dir`` and ``launcher`` set; ``load_from`` may be the name of a
            model whose weights are in this package.
        mode: The task of the runner.

    Raises:
        UserError: one sentence that names what is wrong. The runner raises it too
            where it builds the rest: loops, data, evaluators, optimisers.
    """
    check_run(cfg, mode)
    if mode == 'train' and cfg.get('launcher', 'none') == 'none':
        # Before logs are opened; with several processes SafeCheckpointHook does it.
        lock_folder(cfg.work_dir, purpose='training')
    _keep_config(cfg)
    if shipped := list_shipped().get(cfg.get('load_from')):
        cfg.load_from = str(check_shipped(shipped))
    if get_device() == 'cpu':
        _adapt_precision_to_cpu(cfg)
        keep_freed_memory()
        # A batch of 8 clips comes from its worker in 6 ms; by descriptors in 13 ms.
        set_sharing_strategy('file_system')
    with building(cfg), processes_on_cpus(cfg):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    # mmengine builds these later, but before the first step.
    for method, part in _BUILT_LATER.items():
        if hasattr(runner, method):  # a runner of another type need not have it
            setattr(runner, method, building(cfg, part)(getattr(runner, method)))
    if hasattr(runner, 'resume'):
        runner.resume = partial(_resume, runner.resume)
    return runner


def _resume(resume: Callable[..., None], filename: str, *args, **kwargs) -> None:
    remedy = 'give a checkpoint of a training of this config'
    with blame(f'Checkpoint {filename} cannot be resumed', remedy):
        resume(filename, *args, **kwargs)


def _keep_config(cfg: Config) -> None:
    """Rename mmengine's copy in the work dir where it would overwrite the config."""
    copy = Path(cfg.work_dir, Path(cfg.filename or '').name)
    if copy.is_file() and copy.samefile(cfg.filename):
        object.__setattr__(cfg, '_filename', str(copy.with_stem(f'{copy.stem}_run')))


def _adapt_precision_to_cpu(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'AmpOptimWrapper':
        wrapper.type = 'BFloat16OptimWrapper'
        for setting_of_float16 in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(setting_of_float16, None)


def run_config(
    config: str | Path,
    mode: Literal['train', 'test'],
    change: Callable[[Config], None],
    finish: Callable[[Config], None],
    *,
    work_dir: str | None = None,
    cfg_options: CfgOptions = None,
    launcher: Literal['none', 'pytorch', 'slurm', 'mpi'] = 'none',
    local_rank: int = 0,
) -> None:
    """Train or test from a config file, as ``tools/train.py`` and ``tools/test.py`` do.

    Args:
        config: Config file.
        mode: The task of the runner.
        change: Puts options of the tool into the config, before ``cfg_options``.
        finish: Does so after them.
        work_dir: Folder for logs and results.
        cfg_options: Override settings of the config, as in key=value a.b=1 list="[1,2]".
        launcher: Program that started the processes of a distributed run.
        local_rank: Number of this process on its machine, from the launcher.
    """
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    cfg = load_config(config)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(config).stem))
    change(cfg)
    merge_overrides(cfg, cfg_options)
    finish(cfg)
    runner = build_runner(cfg, mode)
    runner.train() if mode == 'train' else runner.test()
