"""Go through datasets and evaluators of a config and report all faults, with lines."""

import argparse
import sys
from functools import partial

from stmixer_mm.checks.config import SPLITS, check_arguments, load_config
from stmixer_mm.checks.datasets import check_config
from stmixer_mm.checks.evaluators import check_evaluators
from stmixer_mm.checks.options import add_cfg_options
from stmixer_mm.checks.reports import format_report, report_to_dict
from stmixer_mm.errors import user_errors
from stmixer_mm.files import check_json_path, write_json

from mmengine.utils import track_iter_progress


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Exits with 1 if there is any error.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--split', choices=(*SPLITS, 'all'), default='all')
    parser.add_argument(
        '--no-decode',
        action='store_true',
        help='open the videos only, instead of decoding every keyframe',
    )
    parser.add_argument(
        '--allow-overlap',
        action='store_true',
        help='videos that are both trained on and evaluated are only warnings',
    )
    parser.add_argument('--json', metavar='FILE', help='write the whole report here')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        check_json_path(args.json)
        cfg = load_config(args.config, args.cfg_options)
        check_arguments(cfg)
        splits = SPLITS if args.split == 'all' else (args.split,)
        reports = check_config(
            cfg,
            splits,
            decode=not args.no_decode,
            allow_overlap=args.allow_overlap,
            progress=partial(track_iter_progress, file=sys.stderr),
        )
        reports += check_evaluators(cfg, splits)
        for report in reports:
            print(format_report(report))
        write_json(args.json, [report_to_dict(report) for report in reports])
    sys.exit(any(report.num_errors for report in reports))


if __name__ == '__main__':
    main()
