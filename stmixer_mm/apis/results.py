"""Files and pictures of detections.

A new format is a function with :func:`.result_format`.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import format_moment
from stmixer_mm.datasets.frames import without_suffix
from stmixer_mm.errors import blame
from stmixer_mm.files import atomic_path, open_atomically, write_json
from stmixer_mm.pictures import decode
from stmixer_mm.records import arrow_type, json_schema
from stmixer_mm.registry import result_format
from stmixer_mm.structures import Keyframe, VideoDetections
from stmixer_mm.visualization.draw import draw_detections, enlarge

HEAD = '{\n  "version": 1,\n  "video": '  # of the JSON
_BEGIN_FORMULAS = ('=', '+', '-', '@', '\t', '\r')
COLUMNS = ('video', 'time_s', 'frame', 'x1', 'y1', 'x2', 'y2', 'action', 'score')


@result_format('json', '.json')
def write_detections(detections: VideoDetections, path: Path) -> None:
    """Write the JSON of docs/detections.schema.json."""
    write_json(path, detections.to_dict())


def detections_schema() -> dict:
    """JSON Schema of the JSON, as in docs/detections.schema.json."""
    return json_schema(
        VideoDetections,
        'Detections in a video, version 1',
        'A later version may add fields; those of this one stay as they are.',
    )


@result_format('csv', '.csv')
def write_table(detections: VideoDetections, path: Path) -> None:
    """Write a table with a header and a row per person and action, boxes in pixels.

    A person without an action has one row, in which these columns are empty. Ids, if
    there are any, are in a last column.
    """
    write_rows(path, detections.rows(), with_ids=detections.tubes is not None)


def write_rows(path: Path, rows: Iterable[dict], *, with_ids: bool) -> None:
    """Write the table of :func:`write_table`, of :meth:`.VideoDetections.rows`.

    Spreadsheets run text that begins like a formula; it gets a ' in front, as OWASP
    advises.
    """
    with open_atomically(path, encoding='utf-8', newline='') as file:
        table = csv.DictWriter(file, (*COLUMNS, 'id') if with_ids else COLUMNS)
        table.writeheader()
        for row in rows:
            table.writerow({name: _without_formula(cell) for name, cell in row.items()})


def _without_formula(cell: object) -> object:
    is_formula = isinstance(cell, str) and cell.startswith(_BEGIN_FORMULAS)
    return f"'{cell}" if is_formula else cell


@result_format('ava')
def write_ava_csv(detections: VideoDetections, path: Path) -> None:
    """Write AVA's format, a row per person and action, for tools/evaluate.py.

    ``video,timestamp,x1,y1,x2,y2,action_id,score``, boxes in [0, 1], no header.

    Raises:
        UserError: a csv cannot contain the name of the source.
    """
    name = without_suffix(Path(detections.source).name)
    size = detections.width, detections.height
    with open_atomically(path, encoding='utf-8') as file:
        for keyframe in detections.keyframes:
            place = format_moment(name, keyframe.time_s, file=path)
            for person in keyframe.persons:
                box = ','.join(f'{v:.6g}' for v in np.divide(person.bbox, size * 2))
                for action in person.actions:
                    file.write(f'{place},{box},{action.label},{action.score:.4f}\n')


@result_format('parquet', '.parquet', needs='pyarrow')
def write_parquet(detections: VideoDetections, path: Path) -> None:
    """Write one row with the columns of the JSON, null where it has no value."""
    from pyarrow import parquet

    with atomic_path(path) as part:
        parquet.write_table(arrow_table(detections), part)


def arrow_table(detections: VideoDetections) -> Any:
    """A ``pyarrow.Table`` of one row, with the columns of the JSON."""
    import pyarrow

    schema = pyarrow.schema(arrow_type(VideoDetections))
    return pyarrow.Table.from_pylist([detections.to_dict()], schema)


def plot_keyframe(keyframe: Keyframe, picture: np.ndarray) -> np.ndarray:
    """Draw the persons of a keyframe.

    Args:
        keyframe: The persons.
        picture: The frame, RGB uint8 (h, w, 3).

    Returns:
        RGB uint8, of :data:`.MIN_SIDE` pixels at least on its short side.
    """
    with blame('plot_keyframe draws a Keyframe in an array (h, w, 3)', 'give these'):
        picture, factor = enlarge(picture)
        bboxes = keyframe.bboxes * factor
    return draw_detections(
        picture,
        bboxes,
        keyframe.actions,
        ids=keyframe.ids,
        masks=keyframe.masks and [decode(mask) for mask in keyframe.masks],
    )
