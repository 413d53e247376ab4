"""Evaluate a checkpoint on the test set of a config."""

import argparse

from stmixer_mm.apis.running import run_tool
from stmixer_mm.checks.config import merge_overrides
from stmixer_mm.checks.options import COUNT, add_person_thr, number
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.results.offline import metric_configs
from stmixer_mm.files import check_writable_dir, check_writable_file
from stmixer_mm.projects.export.detector import put_in_place
from stmixer_mm.projects.export.formats import format_of

from mmengine.config import Config


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help='checkpoint file or URL, or what tools/export.py wrote'
    )
    parser.add_argument('--dump', metavar='FILE.pkl', help='save the predictions')
    parser.add_argument(
        '--show-dir', help='folder for keyframes with annotated and found boxes'
    )
    parser.add_argument(
        '--show', action='store_true', help='show those keyframes in a window'
    )
    parser.add_argument(
        '--interval', type=COUNT, default=1, help='draw every n-th sample'
    )
    parser.add_argument(
        '--wait-time',
        type=number(float, 0),
        default=2,
        help='seconds that a window is shown',
    )
    add_person_thr(parser)
    return parser


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    """Put the command line into the config; ``--cfg-options`` has the last word."""
    cfg.resume = False
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir is not None:
        if 'visualization' not in cfg.default_hooks:
            raise UserError(
                f'--show and --show-dir need default_hooks.visualization in '
                f'{args.config}; take it over from configs/_base_/default_runtime.py.'
            )
        if args.show_dir is not None:
            check_writable_dir(args.show_dir, purpose='folder --show-dir')
        cfg.default_hooks.visualization.update(
            enable=True,
            show=args.show,
            wait_time=args.wait_time,
            out_dir=args.show_dir,
            interval=args.interval,
        )

    merge_overrides(cfg, args.person_thr | (args.cfg_options or {}))
    if format_of(cfg.load_from) is not None:
        put_in_place(cfg, cfg.load_from)

    if args.dump is not None:
        check_writable_file(args.dump, purpose='--dump', suffixes=('.pkl', '.pickle'))
        # Else ranks meet in the current folder, and leave a folder behind there.
        parts = f'{args.dump}.parts'
        dump = dict(type='DumpPredictions', out_file_path=args.dump, collect_dir=parts)
        metrics = [*metric_configs(cfg, 'test'), dump]
        if 'metrics' in (cfg.get('test_evaluator') or []):  # of dict(type='Evaluator')
            cfg.test_evaluator.metrics = metrics
        else:
            cfg.test_evaluator = metrics


def main() -> None:
    run_tool(make_parser(), merge_args, 'test')


if __name__ == '__main__':
    main()
