"""A runner from a config, also where there is no accelerator."""

from typing import Literal

import torch
from mmaction.registry import RUNNERS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist, is_distributed
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from stmixer_mm.checks.config import check_run
from stmixer_mm.compat import leave_group_at_exit


def build_runner(cfg: Config, mode: Literal['train', 'test'] = 'train') -> Runner:
    """Check a config and build its runner, changing it to run on a CPU if need be.

    Args:
        cfg (Config): With ``work_dir`` and ``launcher`` set.
        mode: What it is to do.

    Raises:
        OSError, ValueError: see :func:`check_run`.
    """
    check_run(cfg, mode)
    if get_device() == 'cpu':
        _adapt_to_cpu(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _adapt_to_cpu(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper')
    if wrapper is not None and wrapper.get('type') == 'AmpOptimWrapper':
        # loss_scale and dtype are the business of float16.
        settings = {
            key: value
            for key, value in wrapper.items()
            if key not in ('loss_scale', 'dtype', 'use_fsdp')
        }
        cfg.optim_wrapper = dict(settings, type='BFloat16OptimWrapper')
    if cfg.get('launcher', 'none') == 'none':
        return
    if not is_distributed():
        _init_gloo(cfg)
    # mmengine gives a GPU's number to DistributedDataParallel, which refuses it here.
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        **(cfg.get('model_wrapper_cfg') or {}),
        'device_ids': None,
    }


def _init_gloo(cfg: Config) -> None:
    env_cfg = cfg.get('env_cfg', {})
    settings = dict(env_cfg.get('dist_cfg', {}), backend='gloo')
    # In mmengine's order: later it would complain of the start method set by then.
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
    # mmengine chooses a GPU whatever the back end.
    set_device = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        init_dist(cfg.launcher, **settings)
    finally:
        torch.cuda.set_device = set_device
    leave_group_at_exit()
