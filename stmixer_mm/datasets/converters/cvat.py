"""CVAT's XML, "CVAT for video 1.1"."""

import reprlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from stmixer_mm.datasets.converters.records import (
    MAX_FRAME,
    TOOL_ATTRIBUTES,
    AnnotatedVideo,
    Annotations,
    Shape,
    action_of,
    fault_at,
    is_true,
    read_frame,
    read_number,
    read_size,
    video_names,
)

_CHOICES = ('checkbox', 'select', 'radio')


class _Attribute(NamedTuple):
    """How CVAT declares an attribute of a label."""

    kind: str  # 'checkbox', 'select', 'radio', 'number' or 'text'
    values: tuple[str, ...]


class CvatReader:
    """Collects what a CVAT file holds, element by element."""

    def __init__(
        self,
        file: str,
        persons: Collection[str] | None,
        attributes: Collection[str] | None,
    ) -> None:
        self.file = file
        self.persons = persons
        self.wanted = attributes
        self.stack: list[str] = []
        self.text = ''
        self.meta: dict[str, str] = {}
        self.declared: dict[str, dict[str, _Attribute]] = {}  # by label
        self.declaring: dict[str, str] = {}
        self.label = ''
        # Label and boxes of each track; actions are worked out when all is known.
        self.tracks: list[tuple[str, list[tuple[Shape, dict, int]]]] = []
        self.pairs: dict[str, str] = {}
        self.attribute = ''
        # Label and name of all, declared or not.
        self.attributes: dict[tuple[str, str], None] = {}
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._read_text
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype

    def read(self, data: bytes) -> Annotations:
        try:
            self.parser.Parse(data, True)
        except (expat.ExpatError, LookupError, ValueError) as error:
            if not isinstance(error, expat.ExpatError) and str(error).startswith(
                self.file
            ):
                raise
            reason = str(error).split(':')[0]
            raise self._wrong(
                f'the XML is broken ({reason}); export it again.'
            ) from error
        has_actions = self._labels_with_actions()
        passed_over: Counter = Counter()
        tracks = []
        for label, boxes in self.tracks:
            if self.persons is not None and label not in self.persons:
                continue
            if has_actions and label not in has_actions:
                passed_over[label] += sum(not shape.outside for shape, *_ in boxes)
                continue
            tracks.append(
                [
                    shape._replace(
                        actions=self._actions(label, pairs, line)
                        if has_actions
                        else (label,)
                    )
                    for shape, pairs, line in boxes
                ]
            )
        declared = self._declared_actions(has_actions)
        seen = sorted({a for track in tracks for shape in track for a in shape.actions})
        video = AnnotatedVideo(
            file=self.file,
            names=video_names(
                self.meta.get('source', ''),
                self.meta.get('name', ''),
                Path(self.file).stem,
            ),
            size=read_size(self.meta),
            frames=self._frames(),
            tracks=tracks,
            interpolate=True,
        )
        return Annotations(
            videos=[video],
            actions=list(dict.fromkeys([*declared, *seen])),
            labels=[*self.declared, *(label for label, _ in self.tracks)],
            attributes=list(dict.fromkeys(name for _, name in self.attributes)),
            labels_are_actions=not has_actions,
            passed_over=passed_over,
            other_attributes=self._other_attributes(has_actions),
        )

    def _wrong(self, message: str, line: int | None = None) -> ValueError:
        line = self.parser.CurrentLineNumber if line is None else line
        return fault_at(self.file, f'line {line}', message)

    def _refuse_doctype(self, *_: object) -> None:
        raise self._wrong(
            'a document type is declared, which CVAT never does; export '
            'the file from CVAT again.'
        )

    def _read_text(self, text: str) -> None:
        self.text += text

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.stack and tag != 'annotations':
            raise self._wrong(
                f'the file starts with <{tag}> instead of <annotations>; export '
                '"CVAT for video 1.1".'
            )
        if tag == 'image' and len(self.stack) == 1:
            raise self._wrong(
                'this is an export "CVAT for images"; export "CVAT for video 1.1".'
            )
        if tag == 'project':
            raise self._wrong(
                'this is the export of a whole project; export its tasks one by one.'
            )
        parent = self.stack[-1] if self.stack else ''
        self.stack.append(tag)
        self.text = ''
        if tag == 'track':
            self.label = attributes.get('label', '')
            if not self.label:
                raise self._wrong('the track has no label; give it one.')
            self.tracks.append((self.label, []))
        elif parent == 'track':
            self._start_shape(tag, attributes)
        elif tag == 'attribute' and len(self.stack) > 2 and self.stack[-3] == 'track':
            self.attribute = attributes.get('name', '')
            if not self.attribute:
                raise self._wrong('the attribute has no name; give it one.')

    def _start_shape(self, tag: str, attributes: dict[str, str]) -> None:
        label, boxes = self.tracks[-1]
        self.pairs = {}
        if self.persons is not None and label not in self.persons:
            return
        if tag != 'box':
            raise self._wrong(
                f'a {label} is drawn as {tag}; draw persons as boxes, or name the '
                'labels of persons.'
            )
        line = self.parser.CurrentLineNumber
        frame = read_frame(attributes.get('frame'))
        if frame is None:
            raise self._wrong(
                f'the frame of the box is {reprlib.repr(attributes.get("frame"))}, no '
                f'whole number from 0 to {MAX_FRAME}; correct it.'
            )
        names = ('xtl', 'ytl', 'xbr', 'ybr')
        bbox = tuple(read_number(attributes.get(name)) for name in names)
        if None in bbox or bbox[0] > bbox[2] or bbox[1] > bbox[3]:
            shown = ', '.join(
                f'{name}={reprlib.repr(attributes.get(name))}' for name in names
            )
            raise self._wrong(
                f'the box {shown} is not two corners, upper left and lower right; '
                'correct it.'
            )
        rotation = read_number(attributes.get('rotation') or 0)
        if rotation is None:
            raise self._wrong(
                f'the rotation {reprlib.repr(attributes["rotation"])} of the box is no '
                'number of degrees; correct it.'
            )
        outside = is_true(attributes.get('outside'))
        if boxes and frame <= boxes[-1][0].frame:
            raise self._wrong(
                f'frame {frame} comes after frame {boxes[-1][0].frame} in the track; '
                'a track has each frame once, in order.'
            )
        shape = Shape(frame, bbox, (), outside, f'line {line}', rotation)
        boxes.append((shape, self.pairs, line))

    def _end(self, tag: str) -> None:
        self.stack.pop()
        text, self.text = self.text.strip(), ''
        if 'track' in self.stack:
            if tag == 'attribute':
                self.pairs[self.attribute] = text
                self.attributes[self.tracks[-1][0], self.attribute] = None
        elif 'attribute' in self.stack:
            self.declaring[tag] = text
        elif tag == 'attribute':
            name = self.declaring.get('name', '')
            values = self.declaring.get('values', '').splitlines()
            self.declared.setdefault(self.label, {})[name] = _Attribute(
                self.declaring.get('input_type', 'text').lower(),
                tuple(value.strip() for value in values),
            )
            self.attributes[self.label, name] = None
            self.declaring = {}
        elif 'label' in self.stack:
            if tag == 'name':
                self.label = text
                self.declared.setdefault(text, {})
        elif tag in ('name', 'width', 'height', 'source', 'size') or 'frame' in tag:
            self.meta.setdefault(tag, text)

    def _is_of_person(self, label: str) -> bool:
        return self.persons is None or label in self.persons

    def _holds_actions(self, label: str, name: str) -> bool:
        if self.wanted is not None and name not in self.wanted:
            return False
        declared = self.declared.get(label, {}).get(name)
        if declared is not None:
            return declared.kind in _CHOICES
        return self.wanted is not None or name not in TOOL_ATTRIBUTES

    def _labels_with_actions(self) -> set[str]:
        """Labels of persons whose attributes hold actions, declared or not."""
        return {
            label
            for label, name in self.attributes
            if self._is_of_person(label) and self._holds_actions(label, name)
        }

    def _other_attributes(self, has_actions: set[str]) -> list[str]:
        """Those of persons that hold no actions."""
        named = {
            name: None
            for label, name in self.attributes
            if (label in has_actions if has_actions else self._is_of_person(label))
        }
        return [
            name
            for name in named
            if not any(self._holds_actions(label, name) for label in has_actions)
        ]

    def _actions(self, label: str, pairs: dict[str, str], line: int) -> tuple[str, ...]:
        actions = []
        for name, value in pairs.items():
            if not self._holds_actions(label, name):
                continue
            kind, values = self.declared.get(label, {}).get(name, ('', ()))
            if kind == 'checkbox':
                value, values = str(is_true(value)), ()
            action = action_of(name, value)
            if action and values and value not in values:
                raise self._wrong(
                    f'the value {value!r} of the attribute {name!r} is not among '
                    f'those declared ({", ".join(values)}); correct it.',
                    line,
                )
            actions += [action] * (action is not None)
        return tuple(dict.fromkeys(actions))

    def _declared_actions(self, has_actions: set[str]) -> list[str]:
        if not has_actions:
            return [label for label in self.declared if self._is_of_person(label)]
        actions = [
            action_of(name, value)
            for label, named in self.declared.items()
            if label in has_actions
            for name, (kind, values) in named.items()
            if self._holds_actions(label, name)
            for value in (('true',) if kind == 'checkbox' else values)
        ]
        return [action for action in actions if action is not None]

    def _frames(self) -> range | None:
        start = read_frame(self.meta.get('start_frame')) or 0
        stop, size = (read_frame(self.meta.get(key)) for key in ('stop_frame', 'size'))
        step = read_frame(self.meta.get('frame_filter', '').rpartition('step=')[2]) or 1
        if stop is None and size is None:
            return None
        return range(
            start, (start + (size - 1) * step if stop is None else stop) + 1, step
        )
