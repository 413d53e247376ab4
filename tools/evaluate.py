"""Evaluate predictions in a file by the metrics of a config, without a model."""

import argparse
import sys

from stmixer_mm.checks.config import check_arguments, load_config
from stmixer_mm.checks.options import add_cfg_options
from stmixer_mm.errors import user_errors
from stmixer_mm.evaluation.results.offline import (
    build_metrics,
    evaluate_results,
    read_results,
)
from stmixer_mm.files import check_json_path, write_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'results',
        help="dump of tools/test.py or MultiSports' frame_detections (.pkl), or csv in "
        'the format of AVA: video,timestamp,x1,y1,x2,y2,action_id,score',
    )
    parser.add_argument('config', help='config file; its test_evaluator evaluates')
    add_cfg_options(parser)
    parser.add_argument('--json', metavar='FILE', help='write the values here')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        check_json_path(args.json)
        cfg = load_config(args.config, args.cfg_options)
        check_arguments(cfg)
        metrics = build_metrics(cfg)
        values, notes = evaluate_results(metrics, read_results(args.results))
        for note in notes:
            print(f'note: {note}', file=sys.stderr)
        width = max(map(len, values))
        for name, value in values.items():
            print(f'{name:<{width}}  {value:.4f}')
        write_json(args.json, values)


if __name__ == '__main__':
    main()
