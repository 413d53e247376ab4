"""Check the datasets of a config, and try one step of its training."""

import sys
from typing import Literal

from stmixer_mm.apis.config import SPLITS, check_arguments, config_files, load_config
from stmixer_mm.command_line import CfgOptions, run_main
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.data_checks.datasets import check_config
from stmixer_mm.projects.data_checks.dry_run import dry_run
from stmixer_mm.projects.data_checks.reports import format_report


def main(
    config: str,
    *,
    split: Literal['train', 'val', 'test', 'all'] = 'all',
    no_decode: bool = False,
    no_run: bool = False,
    json: str | None = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Check the datasets of a config, and try one step of its training.

    All faults of the data are reported, with their lines. If there is none, the
    training is tried: all is built, one step is made, a checkpoint saved (in a temporary
    folder) and two samples validated. Exits with 1 if there is any error.

    Args:
        config: Config file.
        split: Which datasets to check.
        no_decode: Open the videos only, instead of decoding the frames of all clips.
        no_run: Do not try the training, which is left out for a single split, too.
        json: File to write the whole report to.
    """
    cfg = load_config(config, cfg_options)
    check_json_path(json, config_files(cfg))
    check_arguments(cfg)
    splits = SPLITS if split == 'all' else (split,)
    reports = check_config(cfg, splits, decode=not no_decode)
    for report in reports:
        print(format_report(report))
    write_json(json, [report.to_dict() for report in reports])
    is_faulty = any(report.num_errors for report in reports)
    if split == 'all' and not (is_faulty or no_run) and cfg.get('train_cfg'):
        dry_run(cfg)
        print('A step of the training, a checkpoint and a validation were tried.')
    sys.exit(is_faulty)


if __name__ == '__main__':
    run_main(main)
