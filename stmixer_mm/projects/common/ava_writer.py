"""Writing of annotation files in AVA's format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stmixer_mm.datasets.annotations.ava_csv import format_moment
from stmixer_mm.files import write_atomically


class AnnotatedPerson(NamedTuple):
    """A person at a keyframe."""

    bbox_norm: Sequence[float]  # xyxy in [0, 1]
    action_ids: Sequence[int]
    person_id: int
    mask: dict | None = None  # COCO's RLE, at the size of the annotated frame


def empty_file(ann_file: str | Path) -> Path:
    """The file of an annotation file's keyframes without persons."""
    return Path(ann_file).with_name(f'{Path(ann_file).stem}_empty.csv')


def write_annotations(
    ann_file: str | Path,
    keyframes: Mapping[tuple[str, float], Sequence[AnnotatedPerson]],
    *,
    with_empty: bool = True,
) -> list[str]:
    """Write keyframes with persons to a csv file, others to ``<its name>_empty.csv``.

    Args:
        ann_file: The csv file.
        keyframes: The persons of each video and second, rounded to 1 / 1000 s.
        with_empty: Write the second file, too.

    Returns:
        The names of the files.

    Raises:
        UserError: the name of a video does not fit into a csv file.
    """
    ann_file = Path(ann_file)
    rows: list[str] = []
    empty_rows: list[str] = []
    for (video, seconds), persons in keyframes.items():
        place = format_moment(video, seconds, file=ann_file)
        for bbox_norm, action_ids, person_id, _ in persons:
            box = ','.join(f'{value:.6g}' for value in bbox_norm)
            rows += [f'{place},{box},{action},{person_id}\n' for action in action_ids]
        if not persons:
            empty_rows.append(f'{place}\n')
    contents = {ann_file: rows}
    if with_empty:
        contents[empty_file(ann_file)] = empty_rows
    ann_file.parent.mkdir(parents=True, exist_ok=True)
    for path, lines in contents.items():
        write_atomically(path, ''.join(lines).encode())
    return [str(path) for path in contents]
