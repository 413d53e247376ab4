"""Train a detector from a config."""

from functools import partial
from typing import Annotated

from stmixer_mm.apis.running import run_config
from stmixer_mm.command_line import OptionsOf, Seed, run_main
from stmixer_mm.compat import find_latest_checkpoint
from stmixer_mm.errors import UserError

from mmengine.config import Config

Checkpoint = Annotated[str | None, dict(nargs='?', const='auto', metavar='CKPT')]


def main(
    config: str,
    *,
    resume: Checkpoint = None,
    amp: bool = False,
    no_validate: bool = False,
    auto_scale_lr: bool = False,
    seed: Seed | None = None,
    diff_rank_seed: bool = False,
    deterministic: bool = False,
    run: Annotated[dict, OptionsOf(run_config)],
) -> None:
    """Args:
    config: Config file.
    resume: Resume from a checkpoint; without a path from the last one in the work
        dir, if there is one.
    amp: Train in mixed precision.
    no_validate: Do not evaluate during training.
    auto_scale_lr: Scale the learning rate with the total batch size.
    seed: Random seed.
    diff_rank_seed: Give each process a seed of its own.
    deterministic: Use deterministic algorithms.
    """
    randomness = dict(
        seed=seed, diff_rank_seed=diff_rank_seed, deterministic=deterministic
    )
    change = partial(
        change_config,
        amp=amp,
        no_validate=no_validate,
        auto_scale_lr=auto_scale_lr,
        randomness={
            key: value
            for key, value in randomness.items()
            if value not in (None, False)
        },
    )
    run_config(config, 'train', change, partial(resume_from, checkpoint=resume), **run)


def change_config(
    cfg: Config, *, amp: bool, no_validate: bool, auto_scale_lr: bool, randomness: dict
) -> None:
    """Put the command line into the config."""
    if no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if amp:
        wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise UserError(
                f'--amp cannot change optim_wrapper.type={wrapper!r} of {cfg.filename}; '
                'leave out --amp or use type="OptimWrapper".'
            )
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(
                '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=…) in '
                f'{cfg.filename}, the batch size that its learning rate is meant for.'
            )
        cfg.auto_scale_lr.enable = True
    if randomness:
        cfg.randomness = {**(cfg.get('randomness') or {}), **randomness}


def resume_from(cfg: Config, checkpoint: str | None) -> None:
    """Resume from a checkpoint, with 'auto' from the last one, if any."""
    if checkpoint == 'auto':
        checkpoint = find_latest_checkpoint(cfg.work_dir)
    if checkpoint is not None:
        cfg.resume, cfg.load_from = True, checkpoint


if __name__ == '__main__':
    run_main(main)
