"""Evaluate predictions in a file by the metrics of a config, without a model."""

import argparse
import sys
from collections.abc import Sequence
from itertools import chain

from stmixer_mm.checks.config import check_arguments, load_config
from stmixer_mm.checks.options import COUNT, add_cfg_options
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.evaluation.results.offline import (
    build_metrics,
    evaluate_results,
    evaluate_splits,
    read_results,
)
from stmixer_mm.files import check_json_path, write_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'results',
        nargs='+',
        help="dump of tools/test.py, MultiSports' frame_detections or video_detections "
        '(.pkl), a folder with the tubes of ACT or MOC (*_tubes.pkl), or a csv in the '
        'format of AVA: video,timestamp,x1,y1,x2,y2,action_id,score',
    )
    parser.add_argument('config', help='config file; its test_evaluator evaluates')
    add_cfg_options(parser)
    parser.add_argument(
        '--splits',
        type=COUNT,
        nargs='+',
        help='splits of the ground truth that the results are of, one for each, as in '
        '1 2 3 for JHMDB; their mean is shown too',
    )
    parser.add_argument('--json', metavar='FILE', help='write the values here')
    return parser.parse_args()


def check_splits(splits: Sequence[int] | None, results: Sequence[str]) -> None:
    if splits is None and len(results) > 1:
        raise UserError(
            f'{results[1]} is the second of {len(results)} results; say which splits '
            'they are of, as in --splits 1 2 3, or give one.'
        )
    if splits is not None and not len({*splits}) == len(splits) == len(results):
        raise UserError(
            f'--splits {" ".join(map(str, splits))} does not name {len(results)} '
            f'different splits; name one for each of the {len(results)} results.'
        )


def main() -> None:
    args = parse_args()
    with user_errors():
        check_splits(args.splits, args.results)
        check_json_path(args.json)
        cfg = load_config(args.config, args.cfg_options)
        check_arguments(cfg)
        if args.splits is None:
            metrics, results = build_metrics(cfg), read_results(args.results[0])
            values, notes = evaluate_results(metrics, results)
            width = max(map(len, values))
            lines = [f'{name:<{width}}  {value:.4f}' for name, value in values.items()]
        else:
            files = dict(zip(args.splits, args.results, strict=True))
            values, notes = evaluate_splits(cfg, files)
            names = dict.fromkeys(chain(*values.values()))
            rows = [
                [name, *(column.get(name, '-') for column in values.values())]
                for name in names
            ]
            lines = [format_table([['', *values], *rows])]
        for note in notes:
            print(f'note: {note}', file=sys.stderr)
        print(*lines, sep='\n')
        write_json(args.json, values)


if __name__ == '__main__':
    main()
