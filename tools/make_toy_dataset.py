"""Make the toy dataset: little annotated videos of drawn people."""

import argparse
import sys

from stmixer_mm.datasets.toy import make_toy_dataset


def parse_size(text):
    """'192x144' as (192, 144)."""
    try:
        width, height = map(int, text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not WIDTHxHEIGHT, as in 192x144'
        ) from None
    return width, height


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--out', default='data/toy', help='folder to make')
    parser.add_argument('--train-videos', type=int, default=200)
    parser.add_argument('--val-videos', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0, help='decides everything')
    parser.add_argument('--workers', type=int, default=2, help='processes')
    parser.add_argument(
        '--size', type=parse_size, default=(192, 144), help='WIDTHxHEIGHT in pixels'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace a toy dataset that is there'
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    try:
        make_toy_dataset(
            args.out,
            train_videos=args.train_videos,
            val_videos=args.val_videos,
            seed=args.seed,
            size=args.size,
            workers=args.workers,
            force=args.force,
        )
    except (ValueError, OSError, RuntimeError) as error:
        return f'make_toy_dataset: {error}'
    print(f'The toy dataset is in {args.out}.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
