"""CVAT's XML, "CVAT for video 1.1"."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from stmixer_mm.datasets.converters.records import (
    TOOL_ATTRIBUTES,
    AnnotatedVideo,
    Annotations,
    Shape,
    action_of,
    is_true,
    read_frame,
    read_number,
    read_size,
    unique,
    video_names,
)
from stmixer_mm.errors import blame

_LINE = '_line'  # the attribute in which each element keeps the number of its line


class _Attribute(NamedTuple):
    """How CVAT declares an attribute of a label."""

    input_type: str  # 'checkbox', 'select', 'radio', 'number' or 'text'
    values: tuple[str, ...]

    @property
    def is_choice(self) -> bool:
        return self.input_type in ('checkbox', 'select', 'radio')


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
    tracks = [(track.get('label', ''), track) for track in root.iterfind('track')]
    named = [(label, name) for label, own in declared.items() for name in own]
    named += [
        (label, attribute.get('name', ''))
        for label, track in tracks
        for attribute in track.iterfind('*/attribute')
    ]
    named = unique(named)

    def is_of_person(label: str) -> bool:
        return persons is None or label in persons

    def holds_actions(label: str, name: str) -> bool:
        if wanted is not None and name not in wanted:
            return False
        attribute = declared.get(label, {}).get(name)
        if attribute is not None:
            return attribute.is_choice
        return wanted is not None or name not in TOOL_ATTRIBUTES

    acting = {one[0] for one in named if is_of_person(one[0]) and holds_actions(*one)}

    def actions_of(label: str, box: ElementTree.Element) -> Iterator[str]:
        for element in box.iterfind('attribute'):
            name, value = element.get('name', ''), (element.text or '').strip()
            if not holds_actions(label, name):
                continue
            input_type, values = declared.get(label, {}).get(name, ('', ()))
            if input_type == 'checkbox':
                value, values = str(is_true(value)), ()
            action = action_of(name, value)
            if action and values and value not in values:
                raise ValueError(
                    f'the value {value!r} of the attribute {name!r} is not among those '
                    f'declared, {", ".join(values)}'
                )
            if action:
                yield action

    passed_over: Counter = Counter()
    shapes_of_tracks = []
    for label, track in filter(lambda one: is_of_person(one[0]), tracks):
        if acting and label not in acting:
            passed_over[label] += sum(not is_true(box.get('outside')) for box in track)
            continue
        shapes: list[Shape] = []
        for box in track:
            place = f'{file}, line {box.get(_LINE)}'
            with blame(place, 'correct it, or name the labels of persons'):
                actions = unique(actions_of(label, box)) if acting else [label]
                shape = _read_shape(box, label, tuple(actions), place)
                if shapes and shape.frame <= shapes[-1].frame:
                    raise ValueError(
                        f'frame {shape.frame} comes after frame {shapes[-1].frame} in '
                        'the track'
                    )
            shapes.append(shape)
        shapes_of_tracks.append(shapes)

    if acting:
        known = [
            action_of(name, value)
            for label in declared
            if label in acting
            for name, (input_type, values) in declared[label].items()
            if holds_actions(label, name)
            for value in (('true',) if input_type == 'checkbox' else values)
        ]
    else:
        known = [label for label in declared if is_of_person(label)]
    seen = {a for shapes in shapes_of_tracks for shape in shapes for a in shape.actions}
    others = unique(
        name
        for label, name in named
        if (label in acting if acting else is_of_person(label))
    )
    video = AnnotatedVideo(
        file=file,
        names=video_names(_text(root, 'source'), _text(root, 'name'), Path(file).stem),
        size=read_size({key: _text(root, key) for key in ('width', 'height')}),
        frames=frames,
        tracks=shapes_of_tracks,
        interpolate=True,
    )
    return Annotations(
        videos=[video],
        actions=unique([*filter(None, known), *sorted(seen)]),
        labels=[*declared, *(label for label, _ in tracks)],
        attributes=unique(name for _, name in named),
        labels_are_actions=not acting,
        passed_over=passed_over,
        other_attributes=[
            name
            for name in others
            if not any(holds_actions(label, name) for label in acting)
        ],
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


def _declared(root: ElementTree.Element) -> dict[str, dict[str, _Attribute]]:
    """Attributes by label and name."""
    return {
        label.findtext('name', '').strip(): {
            attribute.findtext('name', '').strip(): _Attribute(
                attribute.findtext('input_type', 'text').strip().lower(),
                tuple(map(str.strip, attribute.findtext('values', '').splitlines())),
            )
            for attribute in label.iterfind('attributes/attribute')
        }
        for label in root.iterfind('meta//label')
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
    box: ElementTree.Element, label: str, actions: tuple[str, ...], place: str
) -> Shape:
    if box.tag != 'box':
        raise ValueError(f'a {label} is drawn as {box.tag}, not as a box')
    names = ('xtl', 'ytl', 'xbr', 'ybr')
    bbox = tuple(read_number(box.get(name)) for name in names)
    if None in bbox or bbox[0] > bbox[2] or bbox[1] > bbox[3]:
        shown = ', '.join(f'{name}={box.get(name)}' for name in names)
        raise ValueError(
            f'the box {shown} is not an upper left and a lower right corner'
        )
    return Shape(
        frame=read_frame(box.get('frame')),
        bbox=bbox,
        actions=actions,
        outside=is_true(box.get('outside')),
        place=place,
        rotation=float(box.get('rotation') or 0),
    )
