"""Evaluate a checkpoint on the test set of a config."""

from typing import Annotated

from stmixer_mm.apis.config import config_files, merge_overrides
from stmixer_mm.apis.running import run_config
from stmixer_mm.command_line import Count, NotNegative, OptionsOf, PersonThr, run_main
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.results.dumps import metric_configs
from stmixer_mm.files import check_writable_dir, check_writable_file
from stmixer_mm.registry import model_file_loader

from matplotlib import pyplot
from mmengine.config import Config


def main(
    config: str,
    checkpoint: str,
    *,
    dump: Annotated[str | None, dict(metavar='FILE.pkl')] = None,
    show_dir: str | None = None,
    show: bool = False,
    interval: Count = 1,
    wait_time: NotNegative = 2.0,
    person_thr: PersonThr = None,
    run: Annotated[dict, OptionsOf(run_config)],
) -> None:
    """Args:
    config: Config file.
    checkpoint: Checkpoint file or URL, or a file of tools/export.py.
    dump: Save the predictions.
    show_dir: Folder for keyframes with annotated and found boxes.
    show: Show those keyframes in a window.
    interval: Draw every n-th sample.
    wait_time: Seconds that a window is shown.
    """
    drawing = dict(show=show, wait_time=wait_time, out_dir=show_dir, interval=interval)

    def change(cfg: Config) -> None:
        cfg.resume, cfg.load_from = False, checkpoint
        if show or show_dir is not None:
            draw(cfg, drawing)
        merge_overrides(cfg, person_thr)

    def finish(cfg: Config) -> None:
        if load_file := model_file_loader(cfg.load_from):
            load_file(cfg, cfg.load_from)
        if dump is not None:
            dump_predictions(cfg, dump)

    run_config(config, 'test', change, finish, **run)


def draw(cfg: Config, drawing: dict) -> None:
    """Let the hook of a config draw keyframes."""
    if 'visualization' not in (cfg.get('default_hooks') or {}):
        raise UserError(
            '--show and --show-dir need default_hooks.visualization in '
            f'{cfg.filename}; inherit it from configs/_base_/default_runtime.py.'
        )
    if drawing['show'] and pyplot.get_backend().lower() == 'agg':
        raise UserError(
            '--show has no display to show windows on; give --show-dir instead.'
        )
    if drawing['out_dir'] is not None:
        check_writable_dir(drawing['out_dir'], purpose='folder --show-dir')
    cfg.default_hooks.visualization.update(enable=True, **drawing)


def dump_predictions(cfg: Config, file: str) -> None:
    """Add a metric that writes the predictions to a file."""
    suffixes, inputs = ('.pkl', '.pickle'), config_files(cfg)
    check_writable_file(file, purpose='--dump', suffixes=suffixes, inputs=inputs)
    # By default ranks meet in the current folder, and leave a folder behind there.
    parts = f'{file}.parts'
    dump = dict(type='DumpPredictions', out_file_path=file, collect_dir=parts)
    metrics = [*metric_configs(cfg, 'test'), dump]
    if 'metrics' in (cfg.get('test_evaluator') or []):  # of dict(type='Evaluator')
        cfg.test_evaluator.metrics = metrics
    else:
        cfg.test_evaluator = metrics


if __name__ == '__main__':
    run_main(main)
