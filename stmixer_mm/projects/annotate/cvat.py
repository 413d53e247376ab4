"""Reading CVAT's XML, "CVAT for video 1.1"."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from stmixer_mm.errors import blame
from stmixer_mm.projects.annotate.records import (
    AnnotatedVideo,
    Annotations,
    Shape,
    is_true,
    read_frame,
    read_number,
    read_size,
    unique,
    video_names,
)
from stmixer_mm.structures import encode


def read_cvat(file: str, data: bytes) -> Annotations:
    """Read an XML file; points, lines and skeletons are counted only."""
    with blame(f'{file}: the XML', 'export "CVAT for video 1.1" of one task or job'):
        root = _parse(data)
        declared, frames = _declared(root), _frames(root)
    size = read_size({key: _text(root, key) for key in ('width', 'height')})
    tracks, num_unread = [], 0
    for number, track in enumerate(root.iterfind('track')):
        label, shapes = track.get('label'), []
        for drawn in track:
            if drawn.tag not in _READERS:
                num_unread += 1
                continue
            frame = str(drawn.get('frame'))[:20]
            place = f'{file}, track {track.get("id", number)}, frame {frame}'
            with blame(place, 'correct it'):
                shape = _read_shape(drawn, label, place, size)
                if shapes and shape.frame <= shapes[-1].frame:
                    raise ValueError(f'frame {shape.frame} is not after the last one')
                shapes.append(shape)
        tracks.append(shapes)
    video = AnnotatedVideo(
        file=file,
        names=video_names(_text(root, 'source'), _text(root, 'name'), Path(file).stem),
        size=size,
        frames=frames,
        tracks=tracks,
        interpolate=True,
        num_unread=num_unread,
    )
    labels = [_name(label) for label in root.iterfind('meta//label')]
    labels += [track.get('label') for track in root.iterfind('track')]
    return Annotations(videos=[video], labels=unique(labels), declared=declared)


def _parse(data: bytes) -> ElementTree.Element:
    root = ElementTree.fromstring(data)
    if root.tag != 'annotations':
        raise ValueError(f'it starts with <{root.tag}> instead of <annotations>')
    for path, what in (('image', 'images'), ('meta/project', 'a whole project')):
        if root.find(path) is not None:
            raise ValueError(f'it is an export of {what}')
    if not all(track.get('label') for track in root.iterfind('track')):
        raise ValueError('a track has no label')
    return root


def _text(root: ElementTree.Element, tag: str) -> str:
    """The text under a tag of the head of a file, '' if there is none."""
    found = (root.findtext(f'meta/{path}{tag}') for path in ('', '*/', '*/*/'))
    return next((text.strip() for text in found if text), '')


def _name(declared: ElementTree.Element) -> str:
    return declared.findtext('name', '').strip()


def _declared(root: ElementTree.Element) -> dict[tuple[str, str], list[str] | None]:
    """Choices by label and attribute: [] of a checkbox, None if it is no choice."""

    def choices(attribute: ElementTree.Element) -> list[str] | None:
        input_type = attribute.findtext('input_type', 'text').strip().lower()
        if input_type in ('select', 'radio'):
            return [v.strip() for v in attribute.findtext('values', '').splitlines()]
        return [] if input_type == 'checkbox' else None

    return {
        (_name(label), _name(attribute)): choices(attribute)
        for label in root.iterfind('meta//label')
        for attribute in label.iterfind('attributes/attribute')
    }


def _frames(root: ElementTree.Element) -> range | None:
    """The frames of the task or job, None if the file does not tell them."""
    start, stop, size = (
        read_frame(text) if (text := _text(root, tag)) else None
        for tag in ('start_frame', 'stop_frame', 'size')
    )
    if stop is None and size is None:
        return None
    step = re.search(r'step=(\d+)', _text(root, 'frame_filter'))
    start, step = start or 0, int(step[1]) if step else 1
    return range(start, (start + (size - 1) * step if stop is None else stop) + 1, step)


def _read_shape(
    drawn: ElementTree.Element,
    label: str,
    place: str,
    size: tuple[float, float] | None,
) -> Shape:
    bbox, segmentation = _READERS[drawn.tag](drawn, size)
    return Shape(
        frame=read_frame(drawn.get('frame')),
        bbox=bbox,
        outside=is_true(drawn.get('outside')),
        place=place,
        label=label,
        attributes={
            one.get('name', ''): one.text or '' for one in drawn.iterfind('attribute')
        },
        rotation=float(drawn.get('rotation') or 0),
        segmentation=segmentation,
    )


Drawn = tuple[tuple[float, ...], object]  # pixel xyxy, and COCO's segmentation


def _read_box(box: ElementTree.Element, _: object) -> Drawn:
    corners = {name: box.get(name) for name in ('xtl', 'ytl', 'xbr', 'ybr')}
    bbox = tuple(map(read_number, corners.values()))
    if None in bbox or bbox[0] > bbox[2] or bbox[1] > bbox[3]:
        raise ValueError(f'{corners} are not an upper left and a lower right corner')
    return bbox, None


def _read_polygon(polygon: ElementTree.Element, _: object) -> Drawn:
    text = polygon.get('points', '')  # such as '1,2;3,4;5,6'
    points = [[read_number(value) for value in p.split(',')] for p in text.split(';')]
    if len(points) < 3 or any(len(p) != 2 or None in p for p in points):
        raise ValueError(
            f'the points {text:.40}… of a polygon are not three or more x,y'
        )
    points = np.array(points)
    return (*points.min(axis=0), *points.max(axis=0)), [points.ravel().tolist()]


def _read_mask(mask: ElementTree.Element, size: tuple[float, float] | None) -> Drawn:
    """CVAT's RLE runs along rows of the box."""
    left, top, width, height = box = [
        read_frame(mask.get(name)) for name in ('left', 'top', 'width', 'height')
    ]
    runs = [read_frame(run) for run in mask.get('rle', '').split(',')]
    if size is None or left + width > size[0] or top + height > size[1]:
        raise ValueError(
            f'the mask at left, top, width, height {box} does not fit the frame of '
            f'{size} pixels'
        )
    if sum(runs) != width * height:
        raise ValueError('the numbers of its rle do not fill the box of the mask')
    frame = np.zeros([round(side) for side in size[::-1]], np.uint8)
    inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    frame[top : top + height, left : left + width] = inside
    return (left, top, left + width, top + height), encode(frame)


_READERS = dict(box=_read_box, polygon=_read_polygon, mask=_read_mask)
