"""CVAT's XML, "CVAT for video 1.1"."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from stmixer_mm.errors import ErrorCollector, UserError, blame
from stmixer_mm.files import check_file, write_atomically
from stmixer_mm.pictures import decode, encode
from stmixer_mm.projects.annotate.actions import name_actions
from stmixer_mm.projects.annotate.records import (
    PERSON,
    AnnotatedVideo,
    Annotations,
    Bbox,
    Shape,
    action_names,
    detected_tracks,
    is_true,
    leave_later,
    read_frame,
    read_size,
    unique,
    upright,
)
from stmixer_mm.registry import result_format
from stmixer_mm.structures import VideoDetections

_CORNERS = 'xtl', 'ytl', 'xbr', 'ybr'
_REMEDY = 'export "CVAT for video 1.1" of one task or job'


def read_cvat(file: str, data: bytes, notes: Counter) -> Annotations:
    """Read an XML file; points, lines and skeletons are counted only."""
    root = _parse(file, data)
    with blame(f'{file}: the XML', _REMEDY):
        declared, frames = _declared(root), _frames(root)
        size = read_size(_text(root, 'width'), _text(root, 'height'))
    tracks = []
    with ErrorCollector() as errors:
        for number, track in enumerate(root.iterfind('track')):
            shapes, name = [], f'{file}, track {track.get("id", number)}'
            for drawn in track:
                if drawn.tag not in _READERS:
                    notes['points, lines and skeletons were left out.'] += 1
                    continue
                place = f'{name}, frame {str(drawn.get("frame"))[:20]}'
                with errors.collect(), blame(place, 'correct it'):
                    shape = _read_shape(drawn, size)
                    label = track.attrib['label']
                    shapes.append(shape._replace(label=label, place=place))
            tracks.append(leave_later(shapes))
    names = _text(root, 'source'), _text(root, 'name'), Path(file).stem
    video = AnnotatedVideo(
        file=file,
        names=[name for name in names if name],
        size=size,
        frames=frames,
        tracks=tracks,
        interpolate=True,
    )
    labels = [_name(label) for label in root.iterfind('meta//label')]
    labels += [track.get('label', '') for track in root.iterfind('track')]
    return Annotations(videos=[video], labels=unique(labels), declared=declared)


def _parse(file: str, data: bytes) -> Element:
    with blame(f'{file}: the XML', _REMEDY):
        root = ElementTree.fromstring(data)
        foreign_elements = root.find('image'), root.find('meta/project')
        if root.tag != 'annotations' or foreign_elements != (None, None):
            raise ValueError('it is of another form')
        return root


def _text(root: Element, tag: str) -> str:
    """The text under a tag of the head of a file, '' if there is none."""
    texts = (root.findtext(f'meta/{path}{tag}') for path in ('', '*/', '*/*/'))
    return next((text.strip() for text in texts if text), '')


def _name(declared: Element) -> str:
    return declared.findtext('name', '').strip()


def _declared(root: Element) -> dict[tuple[str, str], list[str] | None]:
    """Actions by label and attribute, None of attributes without choices."""
    return {
        (_name(label), name): None if values is None else name_actions(name, values)
        for label in root.iterfind('meta//label')
        for name, values in _attributes(label)
    }


def _attributes(label: Element) -> Iterator[tuple[str, list[str] | None]]:
    """Name and values of each attribute; None where these are not choices."""
    for attribute in label.iterfind('attributes/attribute'):
        values = attribute.findtext('values', '').splitlines()
        # Without a type, several values are choices.
        untyped = 'select' if len([*filter(str.strip, values)]) > 1 else 'text'
        input_type = attribute.findtext('input_type', untyped).strip().lower()
        if input_type == 'checkbox':
            values = ['true', 'false']
        elif input_type not in ('select', 'radio'):
            values = None
        yield _name(attribute), values


def _frames(root: Element) -> range | None:
    """The frames of the task or job, None if the file does not tell them."""
    start, stop, size = (
        read_frame(text) if (text := _text(root, tag)) else None
        for tag in ('start_frame', 'stop_frame', 'size')
    )
    step = re.search(r'step=(\d+)', _text(root, 'frame_filter'))
    start, step = start or 0, int(step[1]) if step else 1
    if stop is not None:
        return range(start, stop + 1, step)
    return None if size is None else range(start, start + size * step, step)


def _read_shape(drawn: Element, size: tuple[int, int] | None) -> Shape:
    bbox, segmentation = _READERS[drawn.tag](drawn, size)
    return Shape(
        frame=read_frame(drawn.get('frame')),
        bbox=upright(*bbox, float(drawn.get('rotation') or 0)),
        outside=is_true(drawn.get('outside')),
        segmentation=segmentation,
        attributes={
            attribute.get('name', ''): attribute.text or ''
            for attribute in drawn.iterfind('attribute')
        },
    )


Drawn = tuple[Bbox, object]  # and COCO's segmentation


def _read_box(box: Element, _: object) -> Drawn:
    return tuple(float(box.attrib[name]) for name in _CORNERS), None


def _read_polygon(polygon: Element, _: object) -> Drawn:
    pairs = polygon.attrib['points'].split(';')  # such as '1,2;3,4;5,6'
    points = np.array([pair.split(',') for pair in pairs], float)
    x, y = points.T
    return (x.min(), y.min(), x.max(), y.max()), [points.ravel().tolist()]


def _read_mask(mask: Element, size: tuple[int, int]) -> Drawn:
    """CVAT's RLE runs along rows of the box."""
    x1, y1, width, height = (
        read_frame(mask.get(name)) for name in ('left', 'top', 'width', 'height')
    )
    runs = [int(run) for run in mask.attrib['rle'].split(',')]
    inside = decode(dict(size=(width, height), counts=runs)).T
    frame = np.zeros(size, np.uint8)
    frame[y1 : y1 + height, x1 : x1 + width] = inside
    return (x1, y1, x1 + width, y1 + height), encode(frame)


_READERS = dict(box=_read_box, polygon=_read_polygon, mask=_read_mask)


# Of each attribute the text for an action, and for none of them ('').
Texts = dict[str, dict[str, str]]


@result_format('cvat', '.xml')
def write_cvat(
    detections: VideoDetections, path: str | Path, *, like: str | None = None
) -> None:
    """Write detections, to be uploaded to a task of the video.

    Args:
        detections: Of a video.
        path: The XML file.
        like: XML file of a task with the same labels: actions are written to the
            attributes that it declares, the highest-scoring one to a select or radio.
            By default each action is a checkbox of the label "person".

    Raises:
        UserError: ``like`` has no label with all of the actions.
    """
    actions, name = action_names(detections), Path(detections.source).name
    if like is None:
        labels = _checkboxes(actions)
    else:
        check_file(like)
        labels = _parse(like, Path(like).read_bytes()).find('meta//labels')
    label, texts = _texts(labels, actions, str(like))
    root = Element('annotations')
    _add(root, version='1.1')
    meta = SubElement(root, 'meta')
    task = SubElement(meta, 'task')
    _add(task, name=name, size=detections.total_frames)
    task.append(labels)
    _add(
        SubElement(task, 'original_size'),
        width=detections.width,
        height=detections.height,
    )
    _add(meta, source=name)
    for number, track in enumerate(detected_tracks(detections)):
        element = SubElement(root, 'track', id=str(number), label=label, source='auto')
        for shape in track:
            _add_box(element, shape, texts)
    ElementTree.indent(root)
    write_atomically(path, ElementTree.tostring(root, 'utf-8', xml_declaration=True))


def _checkboxes(actions: Sequence[str]) -> Element:
    labels = Element('labels')
    label = SubElement(labels, 'label')
    _add(label, name=PERSON)
    attributes = SubElement(label, 'attributes')
    checkbox = dict(mutable='True', input_type='checkbox')
    checkbox |= dict(default_value='false', values='false')
    for action in actions:
        _add(SubElement(attributes, 'attribute'), name=action, **checkbox)
    return labels


def _texts(
    labels: Element | None, actions: Sequence[str], file: str
) -> tuple[str, Texts]:
    """The label whose attributes name all actions, and their texts."""
    for label in () if labels is None else labels.iterfind('label'):
        texts: Texts = {}
        for name, values in _attributes(label):
            texts[name] = {
                ''.join(name_actions(name, value)): value.strip()
                for value in reversed(values or ())  # the first of two counts
            }
        if {*actions} <= {*chain(*texts.values())}:
            return _name(label), texts
    raise UserError(
        f'{file}: no label has attributes for all actions of the detections '
        f'({", ".join(actions)}); give a task with these actions.'
    )


def _add(parent: Element, **texts: object) -> None:
    for name, text in texts.items():
        SubElement(parent, name).text = str(text)


def _add_box(track: Element, shape: Shape, texts: Texts) -> None:
    corners = zip(_CORNERS, shape.bbox, strict=True)
    box = SubElement(
        track,
        'box',
        dict(frame=str(shape.frame), keyframe='1', outside=str(int(shape.outside)))
        | dict(occluded='0', z_order='0')
        | {name: f'{value:.2f}' for name, value in corners},
    )
    for name, text_of in texts.items():
        for action in (*shape.actions, ''):
            if action in text_of:
                SubElement(box, 'attribute', name=name).text = text_of[action]
                break
