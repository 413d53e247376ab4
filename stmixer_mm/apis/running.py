"""Training and test runs from a config, also where there is no accelerator."""

import argparse
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

from stmixer_mm.checks.config import building, check_run, load_config
from stmixer_mm.checks.options import add_cfg_options
from stmixer_mm.compat import processes_on_cpus
from stmixer_mm.errors import blame, user_errors

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
        cfg: With ``work_dir`` and ``launcher`` set.
        mode: What it is to do.

    Raises:
        UserError: one sentence that names what is wrong. The runner raises it too
            where it builds the rest: loops, data, evaluators, optimisers.
    """
    check_run(cfg, mode)
    _keep_config(cfg)
    if get_device() == 'cpu':
        _adapt_precision_to_cpu(cfg)
        # A batch of 8 clips comes from its worker in 6 ms; by descriptors in 13 ms.
        set_sharing_strategy('file_system')
    with building(cfg), processes_on_cpus(cfg):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    # mmengine builds these when it needs them, which is before the first step.
    for method, part in _BUILT_LATER.items():
        if hasattr(runner, method):  # a runner of another type need not have it
            setattr(runner, method, building(cfg, part)(getattr(runner, method)))
    if hasattr(runner, 'resume'):
        runner.resume = partial(_resume, runner.resume)
    return runner


def _resume(resume: Callable[..., None], filename: str, *args, **kwargs) -> None:
    remedy = 'give one that a training of this config wrote'
    with blame(f'Checkpoint {filename} cannot be resumed from', remedy):
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


def run_tool(
    parser: argparse.ArgumentParser,
    merge_args: Callable[[Config, argparse.Namespace], None],
    mode: Literal['train', 'test'],
) -> None:
    """What ``tools/train.py`` and ``tools/test.py`` share.

    Args:
        parser: With the tool's own arguments, among them ``config``.
        merge_args: Puts them and ``--cfg-options`` into the config.
        mode: What the runner is to do.
    """
    parser.add_argument('--work-dir', help='folder for logs and results')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    with user_errors():
        cfg = load_config(args.config)
        cfg.launcher = args.launcher
        if args.work_dir is not None:
            cfg.work_dir = args.work_dir
        elif cfg.get('work_dir') is None:
            cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
        merge_args(cfg, args)
        runner = build_runner(cfg, mode)
        runner.train() if mode == 'train' else runner.test()
