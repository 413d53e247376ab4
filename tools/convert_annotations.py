"""Convert annotations from CVAT or COCO's JSON to the files that training reads.

Takes "CVAT for video 1.1" (XML) and COCO with videos (JSON). Writes OUT.csv, which is
in AVA's format, OUT_empty.csv with the keyframes that show no person, the label map
and, if persons have masks or polygons, OUT_masks.json.
"""

import argparse
import os
from pathlib import Path

from stmixer_mm.checks.options import number
from stmixer_mm.datasets.annotations.ava_writer import empty_file
from stmixer_mm.datasets.annotations.masks import mask_file
from stmixer_mm.errors import user_errors
from stmixer_mm.files import check_writable_file
from stmixer_mm.projects.annotate.convert import convert_annotations
from stmixer_mm.projects.annotate.records import FRAME_RATES, Summary


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('annotations', nargs='+', help='XML or JSON files')
    parser.add_argument('--videos', required=True, help='folder of the videos')
    parser.add_argument('--out', required=True, metavar='OUT.csv', help='file to write')
    parser.add_argument(
        '--label-map',
        metavar='FILE.pbtxt',
        help='its ids are taken if it exists, else it is written; by default '
        'action_list.pbtxt beside OUT.csv',
    )
    parser.add_argument(
        '--every',
        type=number(float, above=0),
        default=1,
        metavar='SECONDS',
        help='from keyframe to keyframe (default: 1)',
    )
    parser.add_argument(
        '--only',
        nargs='+',
        metavar='VIDEO',
        help='convert these only, named with or without suffix',
    )
    parser.add_argument(
        '--persons',
        nargs='+',
        metavar='LABEL',
        help='labels of persons; by default all that have actions',
    )
    parser.add_argument(
        '--attributes',
        nargs='+',
        metavar='NAME',
        help='attributes that hold actions; by default all',
    )
    parser.add_argument(
        '--idle',
        metavar='ACTION',
        help='action of persons that do none; without it keyframes with such a person '
        'are left out',
    )
    parser.add_argument(
        '--fps',
        type=number(float, *FRAME_RATES),
        help='frame rate of videos that are not in the folder',
    )
    parser.add_argument(
        '--first-frame',
        type=int,
        default=0,
        metavar='N',
        help='number of the first frame in COCO files (default: 0)',
    )
    return parser.parse_args()


def describe(summary: Summary) -> str:
    """What was written and what was not, line by line."""
    lines = [
        f'{summary.num_videos} videos, {summary.num_keyframes} keyframes '
        f'({summary.num_empty} person-free), {summary.num_persons} persons'
        + (f', {summary.num_masks} masks' if summary.num_masks else '')
    ]
    width = max(map(len, summary.class_counts))
    lines += [
        f'  {name:<{width}} {count:>8}' for name, count in summary.class_counts.items()
    ]
    counted = (
        (summary.num_clipped, 'boxes were clipped to the frame.'),
        (summary.num_outside, 'boxes outside of it were left out.'),
        (
            summary.num_idle,
            'keyframes were left out, as a person does nothing there; give --idle '
            'ACTION to keep them.',
        ),
        *(
            (count, f'boxes of the label {label!r} were left out: it has no actions.')
            for label, count in summary.passed_over.items()
        ),
        (
            summary.num_ignored,
            'boxes were left out: they are of crowds, or to be ignored.',
        ),
    )
    lines += [f'{count} {what}' for count, what in counted if count]
    if summary.other_attributes:
        lines.append(
            f'Attributes not read as actions: {", ".join(summary.other_attributes)} '
            '(--attributes names those to read).'
        )
    return '\n'.join([*lines, 'written: ' + ', '.join(summary.files)])


def main() -> None:
    args = parse_args()
    with user_errors():
        check_writable_file(args.out, purpose='--out', suffixes=('.csv',))
        check_writable_file(empty_file(args.out), purpose='OUT_empty.csv')
        check_writable_file(mask_file(args.out), purpose='OUT_masks.json')
        label_map = args.label_map or Path(args.out).with_name('action_list.pbtxt')
        if not os.path.exists(label_map):
            check_writable_file(label_map, purpose='--label-map')
        summary = convert_annotations(
            args.annotations,
            args.out,
            videos=args.videos,
            label_map=label_map,
            every=args.every,
            fps=args.fps,
            only=args.only,
            persons=args.persons,
            attributes=args.attributes,
            idle=args.idle,
            first_frame=args.first_frame,
        )
        print(describe(summary))


if __name__ == '__main__':
    main()
