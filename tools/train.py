"""Train a detector from a config."""

import argparse

from stmixer_mm.apis.running import run_tool
from stmixer_mm.checks.config import merge_overrides
from stmixer_mm.checks.options import SEED
from stmixer_mm.compat import find_latest_checkpoint
from stmixer_mm.errors import UserError

from mmengine.config import Config


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='go on from a checkpoint; without a path from the last one in the work '
        'dir, or start if there is none',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--no-validate', action='store_true', help='do not evaluate during training'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size',
    )
    parser.add_argument('--seed', type=SEED, help='random seed')
    parser.add_argument(
        '--diff-rank-seed',
        action='store_true',
        help='give each process a seed of its own',
    )
    parser.add_argument(
        '--deterministic', action='store_true', help='use deterministic algorithms'
    )
    return parser


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    """Put the command line into the config.

    ``--cfg-options`` has the last word, except on what ``--resume`` goes on from.
    """
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None

    if args.amp:
        wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise UserError(
                f'--amp cannot change optim_wrapper.type={wrapper!r} of {args.config}; '
                f'leave out --amp or use type="OptimWrapper".'
            )
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')

    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(
                f'--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=…) in '
                f'{args.config}, the batch size that its learning rate is meant for.'
            )
        cfg.auto_scale_lr.enable = True

    randomness = dict(cfg.get('randomness') or {})
    if args.seed is not None:
        randomness['seed'] = args.seed
    if args.diff_rank_seed:
        randomness['diff_rank_seed'] = True
    if args.deterministic:
        randomness['deterministic'] = True
    if randomness:
        cfg.randomness = randomness

    merge_overrides(cfg, args.cfg_options)

    if args.resume is not None:
        is_auto = args.resume == 'auto'
        last = find_latest_checkpoint(cfg.work_dir) if is_auto else args.resume
        if last is not None:  # else it is the first start, from load_from if set
            cfg.resume, cfg.load_from = True, last


def main() -> None:
    run_tool(make_parser(), merge_args, 'train')


if __name__ == '__main__':
    main()
