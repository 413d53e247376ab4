"""Go through the datasets of a config and report every fault with file and line."""

import argparse
import sys
from functools import partial

from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress

from stmixer_mm.apis import load_config, user_errors
from stmixer_mm.datasets.validation import (
    SPLITS,
    check_config,
    check_report_path,
    format_report,
    write_reports,
)


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
        help='videos that are both trained on and evaluated are no error',
    )
    parser.add_argument('--json', metavar='FILE', help='write the whole report here')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, as in key=value',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        cfg = load_config(args.config, args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmaction'))
        if args.json:
            check_report_path(args.json)
        reports = check_config(
            cfg,
            SPLITS if args.split == 'all' else (args.split,),
            decode=not args.no_decode,
            allow_overlap=args.allow_overlap,
            progress=partial(track_iter_progress, file=sys.stderr),
        )
        for report in reports:
            print(format_report(report))
        if args.json:
            write_reports(args.json, reports)
    sys.exit(any(report.num_errors for report in reports))


if __name__ == '__main__':
    main()
