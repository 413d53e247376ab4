"""Train several configs one after the other, and compare them in one table.

Each is trained by tools/train.py in a process of its own, with the same options; trainings
in the work dir are resumed. Training steps are timed afterwards, turn by turn in one
process, so that a busy moment meets all configs alike.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from stmixer_mm.apis.config import config_files
from stmixer_mm.command_line import CfgOptions, Count, Seed, run_main
from stmixer_mm.errors import UserError, blame
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


def main(
    configs: Sequence[Path],
    *,
    work_dir: Path = Path('work_dirs/compare'),
    seed: Seed = 0,
    metrics: Sequence[str] = ('mAP/overall', 'mAP/person_AP'),
    turns: Count = 10,
    json_file: Annotated[Path | None, dict(flag='--json', metavar='FILE')] = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Args:
    configs: Config files.
    work_dir: Gets a folder for each config.
    seed: Random seed.
    metrics: Metrics of the last evaluation.
    turns: Timed steps.
    json_file: Write the rows to this file.
    """
    quieten()
    check_json_path(json_file)
    check_writable_dir(work_dir, purpose='work dir')
    rows, steps = [], {}
    for config in configs:
        cfg = read_config(config, cfg_options)
        check_json_path(json_file, config_files(cfg))
        with blame(f'{config} cannot be trained'):
            model = build_model(cfg)
            steps[config.stem] = make_step(cfg, model)
        print(f'{config.stem} …', flush=True)
        folder = work_dir / config.stem
        train(config, folder, seed=seed, options=cfg_options or {})
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        row = dict(config=config.stem, parameters_m=trained / 1e6)
        rows.append(row | read_log(folder, metrics))
    seconds = take_turns(steps, turns=turns, device=torch.device('cpu'))
    table = [('config', *metrics, 'parameters (M)', 'seconds per step')]
    for row in rows:
        row['seconds_per_step'] = round(seconds[row['config']], 4)
        numbers = [f'{row[metric]:.3f}' for metric in metrics]
        numbers += [f'{row["parameters_m"]:.2f}', f'{row["seconds_per_step"]:.3f}']
        table.append((row['config'], *numbers))
    print(format_table(table))
    write_json(json_file, rows)


def train(config: Path, work_dir: Path, *, seed: int, options: dict) -> None:
    """Train a config, or resume its training.

    Raises:
        UserError: The training failed, or the folder has one with other settings.
    """
    record, settings = work_dir / 'trained_with.json', dict(seed=seed, options=options)
    if record.is_file() and json.loads(record.read_text()) != settings:
        raise UserError(
            f'{work_dir} contains a training with other settings (see {record}); give '
            'another --work-dir.'
        )
    work_dir.mkdir(parents=True, exist_ok=True)
    write_json(record, settings)
    command = [sys.executable, str(TRAIN), str(config), '--work-dir', str(work_dir)]
    command += ['--resume', '--seed', str(seed)]
    if options:
        command += ['--cfg-options', *(f'{key}={one}' for key, one in options.items())]
    log = work_dir / 'train.out'
    with log.open('w') as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        reason = lines[-1] if lines else 'no message'
        raise UserError(f'Training {config} failed ({reason}); see {log}.')


def read_log(work_dir: Path, metrics: Sequence[str]) -> dict[str, float]:
    """The metrics of the last evaluation.

    Raises:
        UserError: There is no evaluation with these metrics.
    """
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    lines = [line for log in logs for line in log.read_text().splitlines()]
    evaluations = [row for row in map(json.loads, lines) if metrics[0] in row]
    if not evaluations:
        raise UserError(
            f'The logs in {work_dir} have no {metrics[0]}; name metrics of the '
            "configs' evaluators."
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


if __name__ == '__main__':
    run_main(main)
