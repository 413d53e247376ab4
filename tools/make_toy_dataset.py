"""Make the toy dataset: little annotated videos of drawn people."""

import argparse

from stmixer_mm.errors import user_errors
from stmixer_mm.projects.toy.generate import make_toy_dataset


def parse_size(text: str) -> tuple[int, ...]:
    """'192x144' as (192, 144)."""
    size = text.split('x')
    if len(size) != 2 or not all(side.isdecimal() for side in size):
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT, as in 192x144')
    return tuple(map(int, size))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--out', default='data/toy', help='folder to make')
    parser.add_argument('--train-videos', type=int, default=700)
    parser.add_argument('--val-videos', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0, help='decides everything')
    parser.add_argument('--workers', type=int, default=2, help='processes')
    parser.add_argument(
        '--size', type=parse_size, default=(192, 144), help='WIDTHxHEIGHT in pixels'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace a toy dataset that is there'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        make_toy_dataset(
            args.out,
            train_videos=args.train_videos,
            val_videos=args.val_videos,
            seed=args.seed,
            size=args.size,
            workers=args.workers,
            force=args.force,
        )
        print(f'\nThe toy dataset is in {args.out}.')


if __name__ == '__main__':
    main()
