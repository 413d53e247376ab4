"""Convert a released STMixer checkpoint to this package's names."""

import argparse
import json

from stmixer_mm.apis.conversion import convert_checkpoint
from stmixer_mm.errors import user_errors
from stmixer_mm.files import check_writable_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'src', help='released checkpoint: a state dict, or with "model"'
    )
    parser.add_argument('dst', help='file to write; left alone when something is wrong')
    parser.add_argument(
        '--trust',
        action='store_true',
        help='load Python objects in the file too; they can run code, so only for '
        'files from people you trust',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        check_writable_file(args.dst, purpose='dst')
        parts = convert_checkpoint(args.src, args.dst, trust=args.trust)
        print(f'{args.dst} fits a model with these parts:')
        print(json.dumps(parts, indent=2))


if __name__ == '__main__':
    main()
