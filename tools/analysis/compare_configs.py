"""Train several configs one after the other, and put what came out in one table.

Each is trained by tools/train.py in a process of its own, with the same options. What is
trained already, in the same folder, is not trained again, and what was interrupted goes
on. Training steps are timed afterwards, turn by turn in one process, so that a busy
moment meets all configs alike.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from stmixer_mm.checks.options import COUNT, SEED, add_cfg_options
from stmixer_mm.errors import UserError, blame, user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, check_writable_dir, write_json
from stmixer_mm.projects.profiling.meter import take_turns
from stmixer_mm.projects.profiling.models import build_model, quieten, read_config
from stmixer_mm.registry import DATASETS

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

TRAIN = Path(__file__).parents[1] / 'train.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', help='config files')
    parser.add_argument(
        '--work-dir', default='work_dirs/compare', help='gets a folder for each config'
    )
    parser.add_argument('--seed', type=SEED, default=0, help='(default: %(default)s)')
    parser.add_argument(
        '--metrics',
        nargs='+',
        default=['mAP/overall', 'mAP/person_AP'],
        help='of the last evaluation (default: %(default)s)',
    )
    parser.add_argument(
        '--turns', type=COUNT, default=10, help='timed steps (default: %(default)s)'
    )
    parser.add_argument('--json', metavar='FILE', help='write the rows to this file')
    add_cfg_options(parser)
    return parser.parse_args()


def train(config: Path, work_dir: Path, args: argparse.Namespace) -> None:
    """Train a config, or go on with it, unless its folder holds the whole training.

    Raises:
        UserError: The training failed, or the folder holds one with other settings.
    """
    record = work_dir / 'trained_with.json'
    options = [f'{key}={value}' for key, value in (args.cfg_options or {}).items()]
    settings = dict(seed=args.seed, options=options)
    if record.is_file():
        found = json.loads(record.read_text())
        if found == settings | dict(finished=True):
            return
        if found != settings | dict(finished=False):
            raise UserError(
                f'{work_dir} holds a training with other settings (see {record}); give '
                'another --work-dir.'
            )
    command = [sys.executable, str(TRAIN), str(config), '--work-dir', str(work_dir)]
    command += ['--resume', '--seed', str(args.seed)]
    if options:
        command += ['--cfg-options', *options]
    work_dir.mkdir(parents=True, exist_ok=True)
    write_json(record, settings | dict(finished=False))
    log = work_dir / 'train.out'
    with log.open('w') as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        raise UserError(
            f'Training {config} failed ({lines[-1] if lines else "without a word"}); '
            f'see {log}.'
        )
    write_json(record, settings | dict(finished=True))


def read_log(work_dir: Path, metrics: Sequence[str]) -> dict[str, float]:
    """The metrics of the last evaluation.

    Raises:
        UserError: There is no evaluation with these metrics.
    """
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    evaluations = [record for record in records if metrics[0] in record]
    if not evaluations:
        raise UserError(
            f'The log {logs[-1]} has no {metrics[0]}; name metrics that the evaluator '
            'of the configs yields.'
        )
    return {metric: evaluations[-1][metric] for metric in metrics}


def make_step(cfg: Config, model: nn.Module) -> Callable[[], object]:
    """A training step on the first batch of a config, without loading."""
    loader = cfg.train_dataloader
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
        dataset = DATASETS.build(loader.dataset)
        batch = pseudo_collate([dataset[index] for index in range(loader.batch_size)])
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    return partial(model.train().train_step, batch, optim_wrapper)


def count_parameters(model: nn.Module) -> float:
    """Millions of parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6


def run(args: argparse.Namespace) -> None:
    quieten()
    check_json_path(args.json)
    check_writable_dir(args.work_dir, purpose='work dir')
    rows, steps = [], {}
    for config in map(Path, args.configs):
        cfg = read_config(config, args.cfg_options)
        with blame(f'{config} cannot be trained'):
            model = build_model(cfg)
            steps[config.stem] = make_step(cfg, model)
        work_dir = Path(args.work_dir, config.stem)
        print(f'{config.stem} …', flush=True)
        train(config, work_dir, args)
        result = read_log(work_dir, args.metrics)
        rows.append(
            dict(config=config.stem, parameters_m=count_parameters(model), **result)
        )
    seconds = take_turns(steps, turns=args.turns, device=torch.device('cpu'))
    for row in rows:
        row['seconds_per_step'] = round(seconds[row['config']], 4)
    heading = ('config', *args.metrics, 'parameters (M)', 'seconds per step')
    table = [
        (
            row['config'],
            *(f'{row[metric]:.3f}' for metric in args.metrics),
            f'{row["parameters_m"]:.2f}',
            f'{row["seconds_per_step"]:.3f}',
        )
        for row in rows
    ]
    print(format_table([heading, *table]))
    write_json(args.json, rows)


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
