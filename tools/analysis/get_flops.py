"""Count the FLOPs and parameters of each part of a model."""

import argparse

from stmixer_mm.checks.options import COUNT, add_cfg_options, number
from stmixer_mm.errors import blame, user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.profiling.clips import random_clip
from stmixer_mm.projects.profiling.flops import count_parts
from stmixer_mm.projects.profiling.models import build_model, quieten, read_config

NOTE = (
    'Convolutions and matrix products, a multiply-add as two. Not counted: sampling '
    'of the\nlevels (embedding_bag, grid_sample), norms, activations, pooling, '
    'post-processing.'
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=NOTE)
    parser.add_argument(
        'config', help='config file, or one of a package as in mmaction::a/b.py'
    )
    parser.add_argument(
        '--shape',
        type=COUNT,
        nargs=3,
        metavar=('T', 'H', 'W'),
        help='frames, height and width of the clip; by default what the test pipeline '
        'makes of frames of 4:5',
    )
    parser.add_argument(
        '--persons',
        type=number(int, 0, 10_000),
        default=5,
        help='boxes that a RoI head is given (default: %(default)s)',
    )
    parser.add_argument('--json', metavar='FILE', help='write the rows to this file')
    add_cfg_options(parser)
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    quieten()
    check_json_path(args.json)
    cfg = read_config(args.config, args.cfg_options)
    with blame(f'{args.config} cannot be measured'):
        clip = random_clip(cfg, shape=args.shape, persons=args.persons)
        model = build_model(cfg)
        data = model.data_preprocessor(clip)
        size = list(data['inputs'].shape[-3:])
        counts = count_parts(model, data)
    rows = [('part', 'GFLOP', 'parameters (M)', 'trained (M)')]
    for count in counts:
        numbers = count.flops / 1e9, count.parameters / 1e6, count.trainable / 1e6
        rows.append((count.part, *(f'{number:,.3f}' for number in numbers)))
    print(f'a clip of {"x".join(map(str, size))} (frames, height and width, padded)')
    print(format_table(rows))
    print(NOTE)
    rows = [count._asdict() for count in counts]
    write_json(args.json, dict(config=args.config, clip=size, rows=rows))


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
