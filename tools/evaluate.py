"""Evaluate predictions in files by the metrics of a config, without a model."""

from itertools import chain

import stmixer_mm.projects.published  # noqa: F401 - readers of results
from stmixer_mm.apis.config import check_arguments, load_config
from stmixer_mm.command_line import CfgOptions, Count, run_main
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.evaluation.results.offline import (
    build_metrics,
    evaluate_results,
    mean_rows,
    mean_values,
    protocol_rows,
    read_results,
)
from stmixer_mm.files import check_json_path, write_json


def main(
    results: list[str],
    config: str,
    *,
    splits: list[Count] | None = None,
    protocol: list[str] | None = None,
    json: str | None = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Evaluate predictions in files by the metrics of a config, without a model.

    Args:
        results: Dump of tools/test.py, MultiSports' frame_detections or video_detections
            (.pkl), a folder with the tubes of ACT or MOC (*_tubes.pkl), or a csv in the
            format of AVA: video,timestamp,x1,y1,x2,y2,action_id,score.
        config: Config file; its test_evaluator evaluates.
        splits: Splits of the ground truth that the results are of, one for each, as in
            1 2 3 for JHMDB; their mean is shown too.
        protocol: Names of published evaluators, or all, to score by in one table (of
            splits the mean); see docs/evaluation.md.
        json: Write the values to this file.
    """
    if len({*(splits or [1])}) != len(results):
        raise UserError(
            f'There are {len(results)} results; name as many different splits, as in '
            '--splits 1 2 3.'
        )
    check_json_path(json)
    cfg = load_config(config, cfg_options)
    check_arguments(cfg)
    if protocol:
        tables = []
        for split, file in zip(splits or [None], results, strict=True):
            metrics = build_metrics(cfg, split=split, protocols=protocol)
            tables.append(protocol_rows(metrics, read_results(file)))
        heading, *rows = mean_rows(tables)
        print(format_table([heading, *rows], left=3))
        write_json(json, [dict(zip(heading, row, strict=True)) for row in rows])
        return
    columns = {}
    for split, file in zip(splits or [None], results, strict=True):
        name = 'value' if split is None else f'split {split}'
        metrics = build_metrics(cfg, split=split)
        columns[name] = evaluate_results(metrics, read_results(file))
    if splits:
        columns['mean'] = mean_values(columns.values())
    names = dict.fromkeys(chain(*columns.values()))
    rows = [[name, *(one.get(name, '-') for one in columns.values())] for name in names]
    print(format_table([['', *columns], *rows]))
    write_json(json, columns if splits else columns['value'])


if __name__ == '__main__':
    run_main(main)
