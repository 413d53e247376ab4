"""Summarize results of stmixer detect: who did what for how long."""

import csv
import io
from pathlib import Path

from stmixer_mm.command_line import run_main
from stmixer_mm.files import (
    atomic_path,
    check_writable_file,
    write_atomically,
)
from stmixer_mm.projects.results.summary import (
    PersonAction,
    add_up,
    load_results,
    plot_totals,
    summarize,
)


def main(folder: str, *, out: str | None = None, picture: str | None = None) -> None:
    """Summarize results of stmixer detect: who did what for how long.

    Prints the seconds and times of each action in all videos; writes a csv file with a
    row for each person and action, and a picture of the totals.

    Args:
        folder: Folder that stmixer detect wrote, with a JSON file for each video.
        out: The csv file (default: summary.csv in the folder).
        picture: The picture (default: summary.png in the folder).

    Raises:
        UserError: the folder has no results, or they have no ids.
    """
    out = Path(out or Path(folder, 'summary.csv'))
    picture = Path(picture or Path(folder, 'summary.png'))
    check_writable_file(out, purpose='--out', suffixes=('.csv',))
    check_writable_file(picture, purpose='--picture', suffixes=('.png',))
    rows = []
    for detections in load_results(folder).values():
        rows += summarize(detections)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(PersonAction._fields)
    writer.writerows(
        [round(value, 3) if isinstance(value, float) else value for value in row]
        for row in rows
    )
    write_atomically(out, text.getvalue().encode())
    totals = add_up(rows)
    with atomic_path(picture) as part:
        plot_totals(totals).savefig(part, format='png', dpi=120)
    print(f'{"action":24} {"persons":>7} {"seconds":>9} {"times":>6}')
    for total in totals:
        print(
            f'{total.action:24} {total.persons:7} {total.seconds:9.1f} {total.times:6}'
        )
    print(f'written: {out}, {picture}')


if __name__ == '__main__':
    run_main(main)
