"""CVAT's XML, "CVAT for video 1.1"."""

import re
from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from stmixer_mm.errors import blame
from stmixer_mm.projects.annotate.actions import TOOL_ATTRIBUTES, action_of, is_true
from stmixer_mm.projects.annotate.records import (
    AnnotatedVideo,
    Annotations,
    Shape,
    read_frame,
    read_number,
    read_size,
    unique,
    video_names,
)
from stmixer_mm.structures import Mask, encode

_LINE = '_line'  # the attribute in which each element keeps the number of its line


def read_cvat(
    file: str,
    data: bytes,
    persons: Collection[str] | None,
    wanted: Collection[str] | None,
) -> Annotations:
    """Read an XML file; see ``convert_annotations`` for labels and attributes."""
    with blame(f'{file}: the XML', 'export "CVAT for video 1.1" of one task or job'):
        root = _parse(data)
        declared = _declared(root)
        frames = _frames(root)

    def choices(label: str, name: str) -> list[str] | None:
        """Values of an attribute that may hold actions; [] if they are not declared."""
        if wanted is not None and name not in wanted:
            return None
        undeclared = [] if wanted is not None or name not in TOOL_ATTRIBUTES else None
        return declared.get((label, name), undeclared)

    def actions_of(label: str, box: ElementTree.Element) -> dict[str, list[str]]:
        actions = {}
        for element in box.iterfind('attribute'):
            name, value = element.get('name', ''), (element.text or '').strip()
            values = choices(label, name)
            if values is None:
                continue
            if values == ['true']:
                value = str(is_true(value)).lower()
            action = action_of(name, value)
            if action and values and value not in values:
                raise ValueError(
                    f'the value {value!r} of the attribute {name!r} is not among those '
                    f'declared, {", ".join(values)}'
                )
            actions[name] = [action] if action else []
        return actions

    size = read_size({key: _text(root, key) for key in ('width', 'height')})
    tracks = []
    for track in root.iterfind('track'):
        label, shapes = track.get('label'), []
        for box in track if persons is None or label in persons else ():
            place = f'{file}, line {box.get(_LINE)}'
            with blame(place, 'correct it, or name the labels of persons'):
                shape = _read_shape(box, label, place, size)
                if shapes and shape.frame <= shapes[-1].frame:
                    raise ValueError(f'frame {shape.frame} is not after the last one')
                shapes.append(shape._replace(given=actions_of(label, box)))
        tracks.append(shapes)
    video = AnnotatedVideo(
        file=file,
        names=video_names(_text(root, 'source'), _text(root, 'name'), Path(file).stem),
        size=size,
        frames=frames,
        tracks=tracks,
        interpolate=True,
    )
    labels = [_name(label) for label in root.iterfind('meta//label')]
    found = [
        (track.get('label'), attribute.get('name', ''))
        for track in root.iterfind('track')
        for attribute in track.iterfind('*/attribute')
    ]
    return Annotations(
        videos=[video],
        labels=unique(labels + [t.get('label') for t in root.iterfind('track')]),
        attributes=unique([*declared, *found]),
        declared={
            (label, name): [a for value in values if (a := action_of(name, value))]
            for label, name in declared
            if (values := choices(label, name))
            and (persons is None or label in persons)
        },
    )


def _parse(data: bytes) -> ElementTree.Element:
    """The tree of a file, each element with its line."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, _LINE: str(parser.CurrentLineNumber)})

    def refuse(*_: object) -> None:  # entities could blow up the file
        raise ValueError('it declares a document type, which CVAT never does')

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    parser.Parse(data, True)
    root = builder.close()
    if root.tag != 'annotations':
        raise ValueError(f'it starts with <{root.tag}> instead of <annotations>')
    for path, what in (('image', 'images'), ('meta/project', 'a whole project')):
        if root.find(path) is not None:
            raise ValueError(f'it is an export of {what}')
    for track in root.iterfind('track'):
        if not track.get('label'):
            raise ValueError(f'the track in line {track.get(_LINE)} has no label')
    return root


def _text(root: ElementTree.Element, tag: str) -> str:
    """What the head of a file says under a tag, '' if nothing."""
    found = (root.findtext(f'meta/{path}{tag}') for path in ('', '*/', '*/*/'))
    return next((text.strip() for text in found if text), '')


def _name(declared: ElementTree.Element) -> str:
    return declared.findtext('name', '').strip()


def _declared(root: ElementTree.Element) -> dict[tuple[str, str], list[str] | None]:
    """Values by label and attribute: 'true' for a checkbox, None if it is no choice."""

    def values(attribute: ElementTree.Element) -> list[str] | None:
        input_type = attribute.findtext('input_type', 'text').strip().lower()
        if input_type == 'checkbox':
            return ['true']
        if input_type not in ('select', 'radio'):
            return None
        return [v.strip() for v in attribute.findtext('values', '').splitlines()]

    return {
        (_name(label), _name(attribute)): values(attribute)
        for label in root.iterfind('meta//label')
        for attribute in label.iterfind('attributes/attribute')
    }


def _frames(root: ElementTree.Element) -> range | None:
    """The frames of the task or job, None if the file does not say."""
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
    """A box, a polygon or a mask in a frame of this width and height."""
    segmentation = None
    if drawn.tag == 'polygon':
        bbox, segmentation = _read_polygon(drawn.get('points', ''))
    elif drawn.tag == 'mask':
        bbox, segmentation = _read_mask(drawn, size)
    else:
        bbox = _read_box(drawn)
    return Shape(
        frame=read_frame(drawn.get('frame')),
        bbox=bbox,
        actions=(),
        outside=is_true(drawn.get('outside')),
        place=place,
        rotation=float(drawn.get('rotation') or 0),
        label=label,
        segmentation=segmentation,
    )


def _read_box(box: ElementTree.Element) -> tuple[float, ...]:
    corners = {name: box.get(name) for name in ('xtl', 'ytl', 'xbr', 'ybr')}
    bbox = tuple(map(read_number, corners.values()))
    if box.tag != 'box' or None in bbox or bbox[0] > bbox[2] or bbox[1] > bbox[3]:
        raise ValueError(
            f'the {box.tag} {corners} is not a box with an upper left and a lower right '
            'corner'
        )
    return bbox


def _read_polygon(text: str) -> tuple[tuple[float, ...], list[list[float]]]:
    """The box around points like '1,2;3,4;5,6', and the points as COCO has them."""
    points = [[read_number(value) for value in p.split(',')] for p in text.split(';')]
    if len(points) < 3 or any(len(p) != 2 or None in p for p in points):
        raise ValueError(
            f'the points {text:.40}… of a polygon are not three or more x,y'
        )
    points = np.array(points)
    return (*points.min(axis=0), *points.max(axis=0)), [points.ravel().tolist()]


def _read_mask(
    mask: ElementTree.Element, size: tuple[float, float] | None
) -> tuple[tuple[float, ...], Mask]:
    """A mask's box, and its RLE in COCO's form; CVAT's runs along rows of the box."""
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
