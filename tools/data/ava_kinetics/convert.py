"""Convert AVA-Kinetics' annotation of Kinetics to AVA's format for the clips you have.

Writes OUT.csv, whose videos are the clips and whose timestamps count from their starts.
Keyframes whose clip is missing, cannot be read or is too short are left out.
"""

import argparse
import sys
from collections.abc import Iterable
from functools import partial

from stmixer_mm.checks.options import number
from stmixer_mm.datasets.annotations.ava_writer import empty_file
from stmixer_mm.errors import user_errors
from stmixer_mm.files import check_writable_file
from stmixer_mm.projects.annotate.ava_kinetics import (
    FILENAME_TMPL,
    FPS,
    Summary,
    convert_ava_kinetics,
)
from stmixer_mm.projects.annotate.records import FRAME_RATES

from mmengine.utils import track_iter_progress


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'annotations', nargs='+', help='published files, as kinetics_train_v1.0.csv'
    )
    parser.add_argument(
        '--clips',
        required=True,
        metavar='FOLDER',
        help='clips named ID_START_END.mp4, in folders of their classes or not',
    )
    parser.add_argument('--out', required=True, metavar='OUT.csv', help='file to write')
    parser.add_argument(
        '--frames',
        action='store_true',
        help='clips are folders ID_START_END of extracted frames',
    )
    parser.add_argument(
        '--empty',
        action='store_true',
        help='write keyframes without a person to OUT_empty.csv; the annotation does not '
        'say that nobody is there',
    )
    parser.add_argument(
        '--no-lengths',
        action='store_true',
        help='do not open the clips to see how long they really are',
    )
    parser.add_argument(
        '--fps',
        type=number(float, *FRAME_RATES),
        default=FPS,
        help=f'frame rate of extracted frames (default: {FPS})',
    )
    parser.add_argument(
        '--filename-tmpl',
        default=FILENAME_TMPL,
        metavar='NAME',
        help=f'names of extracted frames (default: {FILENAME_TMPL})',
    )
    return parser.parse_args()


def describe(summary: Summary, folder: str, empty: bool) -> str:
    """What was written and what was not, line by line."""
    lines = [
        f'{summary.num_clips} clips, {summary.num_keyframes} keyframes, '
        f'{summary.num_persons} persons'
    ]

    def some(names: Iterable[str]) -> str:
        names = list(names)
        return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')

    missing, unreadable = summary.missing_videos, summary.unreadable
    left_out = 'keyframes were left out:'
    counted = (
        (
            summary.num_without_video,
            f'{left_out} {folder} has no clip of their {len(missing)} videos '
            f'({some(missing)}).',
        ),
        (summary.num_between, f'{left_out} no clip of their videos shows them.'),
        (summary.num_beyond, f'{left_out} their clips end before them.'),
        (
            len(unreadable),
            f'clips cannot be read and count as missing ({some(unreadable)}).',
        ),
        (
            summary.num_empty,
            'keyframes are taken as person-free.'
            if empty
            else f'{left_out} they have no person; --empty takes them as person-free.',
        ),
        (summary.num_clipped, 'boxes were clipped to the frame.'),
        (summary.num_repeated, 'lines repeat another and count once.'),
    )
    lines += [f'{count} {what}' for count, what in counted if count]
    return '\n'.join([*lines, 'written: ' + ', '.join(summary.files)])


def main() -> None:
    args = parse_args()
    with user_errors():
        check_writable_file(args.out, purpose='--out')
        if args.empty:
            check_writable_file(empty_file(args.out), purpose='OUT_empty.csv')
        summary = convert_ava_kinetics(
            args.annotations,
            args.out,
            clips=args.clips,
            frames=args.frames,
            empty=args.empty,
            lengths=not args.no_lengths,
            fps=args.fps,
            filename_tmpl=args.filename_tmpl,
            progress=partial(track_iter_progress, file=sys.stderr),
        )
        print(describe(summary, args.clips, args.empty))


if __name__ == '__main__':
    main()
