"""Results of many sources that are missing or out of date."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from stmixer_mm.datasets.streams import source_files
from stmixer_mm.errors import UserError


def choose_unfinished(
    files: Mapping[str, Path],
    read_digest: Callable[[Path, str], str | None],
    digest: str,
    *,
    overwrite: bool,
) -> dict[str, Path]:
    """Results, by source, that are missing, damaged or out of date.

    Args:
        files: All results, by source.
        read_digest: Reads what a result was made with; None: it is missing. It raises
            ``UserError`` for one that is damaged.
        digest: Of the model and the options now.
        overwrite: Results made with others may be replaced.

    Raises:
        UserError: there are such results, and they may not be.
    """
    chosen, outdated_files = {}, []
    for source, file in files.items():
        try:
            made_with = read_digest(file, source)
        except UserError as error:
            made_with = None
            print(error, file=sys.stderr)
        if made_with != digest:
            chosen[source] = file
            outdated_files += [file] * (made_with is not None)
    if outdated_files and not overwrite:
        raise UserError(
            f'{len(outdated_files)} of {len(files)} results were made with another '
            f'model or other options, such as {outdated_files[0]}; pass --overwrite to '
            'make them anew, or choose another --out.'
        )
    print(f'videos to do: {len(chosen)}, finished before: {len(files) - len(chosen)}')
    return chosen


def source_version(source: object) -> dict[str, float]:
    """Size and time of the last change of a source's files; empty without files."""
    stats = [os.stat(file) for file in source_files(source)]
    if not stats:
        return {}
    mtime = max(stat.st_mtime for stat in stats)
    return dict(num_bytes=sum(stat.st_size for stat in stats), mtime=round(mtime, 3))
