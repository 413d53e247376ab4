"""From the files of annotation tools to AVA's: CVAT's XML, COCO's JSON with videos.

Read are "CVAT for video 1.1" (one task or job, https://docs.cvat.ai, XML annotation
format) and JSON as COCO's with ``videos``, ``images`` that have a ``video_id`` and a
``frame_id``, and ``annotations`` that may have a ``track_id`` or ``instance_id``
(mmtracking's CocoVID, TAO). Frames count from 0; boxes are pixel xyxy once read.

Actions are what the attributes of a person say: a checkbox is named as its action, the
values of a select or radio are actions. A file without such attributes has an action in
each label (category).
"""

import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from stmixer_mm.engine.files import check_writable_dir, write_atomically

from .ava_csv import read_label_names
from .frames import find_video, keyframe_index, open_video

# Values of a select that mean that nothing was chosen; '__undefined__' is CVAT's.
NO_ACTION = ('', 'none', 'no action', '__undefined__')
# What tools write beside the annotators' own attributes.
TOOL_ATTRIBUTES = (
    *('occluded', 'outside', 'keyframe', 'track_id', 'instance_id', 'rotation'),
    *('source', 'truncated', 'difficult', 'group', 'z_order'),
)
MAX_STRETCH = 0.02  # of the aspect ratio, between the annotated and the actual video


class Shape(NamedTuple):
    """A person in a frame."""

    frame: int
    bbox: tuple[float, float, float, float]  # pixel xyxy, may leave the frame
    actions: tuple[str, ...]
    outside: bool  # True: from this frame on the person is not seen
    place: str  # where in the file


@dataclass(kw_only=True)
class AnnotatedVideo:
    """What a file says of one video."""

    file: str
    names: list[str]  # that its file may have, the likeliest first
    size: tuple[float, float] | None = None  # width and height of the annotated frames
    fps: float | None = None
    frames: Sequence[int] | None = None  # annotated ones, rising; None: all there are
    tracks: list[list[Shape]] = field(default_factory=list)  # each by rising frame
    interpolate: bool = False  # between the shapes of a track


@dataclass(kw_only=True)
class Annotations:
    """What a file says."""

    videos: list[AnnotatedVideo]
    actions: list[str]  # all that it may hold, in the order of their ids
    passed_over: Counter = field(default_factory=Counter)  # boxes by label: no persons


class VideoFacts(NamedTuple):
    """What is known of a video once it was looked for."""

    name: str
    fps: float
    total_frames: int | None
    size: tuple[float, float]  # of the annotated frames


@dataclass(kw_only=True)
class Summary:
    """What was written, and what not."""

    files: list[str]
    num_videos: int = 0
    num_keyframes: int = 0
    num_empty: int = 0
    num_persons: int = 0
    num_clipped: int = 0  # boxes that left the frame in part
    num_outside: int = 0  # boxes that left it as a whole
    num_idle: int = 0  # keyframes left out, since a person does nothing there
    passed_over: Counter = field(default_factory=Counter)
    class_counts: Counter = field(default_factory=Counter)


def convert_annotations(
    files: Iterable[str],
    out: str,
    *,
    videos: str,
    label_map: str | None = None,
    every: float = 1,
    fps: float | None = None,
    only: Collection[str] | None = None,
    persons: Collection[str] | None = None,
    attributes: Collection[str] | None = None,
    idle: str | None = None,
    first_frame: int = 0,
) -> Summary:
    """Write ``out`` in AVA's format, ``<out>_empty.csv`` and the label map.

    Args:
        files: CVAT XML or COCO JSON files.
        out: The csv file to write; keyframes of no person go beside it.
        videos: Folder of the videos, which know their frame rates.
        label_map: Label map (pbtxt); its ids are taken if it exists, else it is
            written. By default ``action_list.pbtxt`` beside ``out``.
        every: Seconds from keyframe to keyframe, from 0 s on.
        fps: Frame rate of videos that are not in the folder (extracted frames).
        only: Videos to convert, by name with or without suffix; None: all.
        persons: Labels (categories) of persons; None: all that have actions.
        attributes: Attributes that hold actions; None: all.
        idle: Action of persons that do none. Without it their keyframes are left
            out, since they would be neither persons nor background.
        first_frame: Number of a video's first frame in COCO files.

    Raises:
        FileNotFoundError, OSError, ValueError: one sentence with file and place.
    """
    out = Path(out)
    if out.suffix != '.csv':
        raise ValueError(f'The output {out} must end in .csv.')
    if not (every > 0 and math.isfinite(every)):
        raise ValueError(f'Keyframes every {every:g} s are impossible; give more.')
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f'{fps:g} frames per second are impossible; correct it.')
    label_map = Path(label_map) if label_map else out.with_name('action_list.pbtxt')
    read = [
        read_annotations(
            file, persons=persons, attributes=attributes, first_frame=first_frame
        )
        for file in map(str, files)
    ]
    ids = _action_ids(read, label_map, idle)
    empty_file = out.with_name(f'{out.stem}_empty.csv')
    summary = Summary(files=[str(out), str(empty_file), str(label_map)])
    for one in read:
        summary.passed_over += one.passed_over

    rows: dict[tuple[str, float], list[str]] = {}
    known = []
    for video in [video for one in read for video in one.videos]:
        known.extend(video.names)
        if only is not None and not _is_among(video.names, only):
            continue
        facts = find_facts(video, videos, fps)
        summary.num_videos += 1
        for timestamp, lines in _keyframe_lines(
            video, facts, every, ids, idle, summary
        ):
            if (facts.name, timestamp) in rows:
                raise ValueError(
                    f'{video.file}: {facts.name} is annotated at '
                    f'{_seconds(timestamp)} s in another file too; leave one out.'
                )
            rows[facts.name, timestamp] = lines
    unknown = [name for name in only or () if not _is_among([name], known)]
    if unknown:
        raise ValueError(
            f'The video {unknown[0]} is in none of the annotation files, which have '
            f'{", ".join(dict.fromkeys(known)) or "none"}; correct its name.'
        )
    lines = [line for group in rows.values() for line in group]
    if not lines:
        raise ValueError(
            f'{read[0].videos[0].file if read and read[0].videos else "The input"} '
            f'has no person with an action at a keyframe, one every {every:g} s; '
            'convert more keyframes, or see whether the actions are attributes.'
        )
    empty = [
        f'{name},{_seconds(time)}' for (name, time), group in rows.items() if not group
    ]
    summary.num_keyframes, summary.num_empty = len(rows), len(empty)
    check_writable_dir(out.parent, purpose='output folder')
    if not label_map.exists():
        check_writable_dir(label_map.parent, purpose='folder of the label map')
        write_atomically(label_map, format_label_map(ids).encode())
    write_atomically(out, ''.join(f'{line}\n' for line in lines).encode())
    write_atomically(empty_file, ''.join(f'{line}\n' for line in empty).encode())
    return summary


def format_label_map(ids: Mapping[str, int]) -> str:
    """The label map (pbtxt) of actions."""
    return ''.join(
        f'item {{\n  name: "{name}"\n  id: {number}\n}}\n'
        for name, number in ids.items()
    )


def read_annotations(
    file: str,
    *,
    persons: Collection[str] | None = None,
    attributes: Collection[str] | None = None,
    first_frame: int = 0,
) -> Annotations:
    """Read a CVAT XML or COCO JSON file, told apart by their first character.

    Raises:
        FileNotFoundError, ValueError: naming the file and the place.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f'{file}: the file does not exist; correct the path.')
    data = path.read_bytes()
    if data[:4] == b'PK\x03\x04':
        raise ValueError(f'{file}: this is a zip archive; unpack it first.')
    # A byte-order mark, or UTF-16, whose zero bytes are in the way.
    start = data[:200].lstrip(b'\xef\xbb\xbf\xff\xfe').replace(b'\0', b'').lstrip()[:1]
    if start == b'<':
        return _CvatReader(file, persons, attributes).read(data)
    if start == b'{':
        return _read_coco(file, data, persons, attributes, first_frame)
    what = 'empty' if not data.strip() else 'neither XML nor a JSON object'
    raise ValueError(
        f'{file}: the file is {what}; export "CVAT for video 1.1" or COCO with videos.'
    )


def keyframe_times(
    frames: Sequence[int], *, every: float, fps: float, total_frames: int
) -> list[tuple[float, int]]:
    """Timestamps in seconds, and the annotated frames that they name.

    Args:
        frames: Annotated frames, rising.
        every: Seconds from keyframe to keyframe, from 0 s on. Where that frame is not
            annotated, the nearest within half of ``every`` is taken, at its own time.
        total_frames: Frames of the video.
    """
    frames = frames[: bisect_left(frames, total_frames)]
    if not frames:
        return []
    times: dict[int, float] = {}
    first = max(0, math.ceil((frames[0] - 0.5) / fps / every))
    for step in range(first, math.floor((frames[-1] + 0.5) / fps / every) + 1):
        position = step * every * fps
        index = bisect_left(frames, position)
        near = frames[max(0, index - 1) : index + 1]
        frame = min(near, key=lambda frame, position=position: abs(frame - position))
        if abs(frame - position) > max(every * fps / 2, 0.5) or frame in times:
            continue
        at, own = round(step * every, 3), round(frame / fps, 3)
        fits = at * fps <= total_frames and frame == keyframe_index(
            at, fps=fps, total_frames=total_frames
        )
        times[frame] = at if fits else own
    return [(time, frame) for frame, time in times.items()]


def shape_at(track: Sequence[Shape], frame: int, *, interpolate: bool) -> Shape | None:
    """The person of a track in a frame, None where it is not seen.

    Args:
        track: Shapes by rising frame.
        interpolate: Between two shapes the box goes from one to the other on a
            straight line, and stays where it is if it is not seen from the next on;
            the actions are those of the former. Else only frames with a shape count.
    """
    index = bisect_right(track, frame, key=lambda shape: shape.frame) - 1
    if index < 0 or track[index].outside:
        return None
    shape = track[index]
    if shape.frame == frame:
        return shape
    if not interpolate or index + 1 == len(track):
        return None
    after = track[index + 1]
    if after.outside:
        return shape._replace(frame=frame)
    share = (frame - shape.frame) / (after.frame - shape.frame)
    bbox = tuple(
        a + share * (b - a) for a, b in zip(shape.bbox, after.bbox, strict=True)
    )
    return shape._replace(frame=frame, bbox=bbox)


def find_facts(video: AnnotatedVideo, folder: str, fps: float | None) -> VideoFacts:
    """Look for a video, by each of its names; check that it is the annotated one.

    Raises:
        FileNotFoundError, ValueError: it is missing, or another one.
    """
    found = ((name, find_video(folder, name)) for name in video.names)
    name, path = next((pair for pair in found if pair[1]), (video.names[0], None))
    if ',' in name or '"' in name:
        raise ValueError(
            f'{video.file}: the name of the video {name!r} has a comma or a quote, '
            'which a csv cannot hold; rename the video there and in its folder.'
        )
    if path is None:
        rate = fps or video.fps
        if rate is None or video.size is None:
            lacks = 'frame rate' if rate is None else 'size'
            remedy = ' or give the frame rate' if rate is None else ''
            raise FileNotFoundError(
                f'{video.file}: the video {name} is not in {folder}, and its {lacks} '
                f'is unknown without it; put it there{remedy}.'
            )
        return VideoFacts(name, rate, None, video.size)
    reader = open_video(path)
    height, width = reader[0].shape[:2]
    size = video.size or (width, height)
    if abs(size[0] / size[1] * height / width - 1) > MAX_STRETCH:
        raise ValueError(
            f'{video.file}: the annotated video has {size[0]:g}x{size[1]:g} pixels, '
            f'but {path} has {width}x{height}; put the annotated one there.'
        )
    facts = VideoFacts(name, reader.get_avg_fps(), len(reader), size)
    # Tools disagree on the last few frames of some videos.
    end = facts.total_frames + facts.fps
    for shape in (shape for track in video.tracks for shape in track):
        if shape.frame >= end and not shape.outside:
            raise _error(
                video.file,
                shape.place,
                f'frame {shape.frame} is annotated, but {path} has '
                f'{facts.total_frames} frames; put the annotated video there.',
            )
    return facts


def _keyframe_lines(
    video: AnnotatedVideo,
    facts: VideoFacts,
    every: float,
    ids: Mapping[str, int],
    idle: str | None,
    summary: Summary,
) -> Iterator[tuple[float, list[str]]]:
    """Timestamp and csv lines of each keyframe; counts into ``summary``."""
    frames = video.frames
    if frames is None:
        last = max(
            (shape.frame for track in video.tracks for shape in track), default=0
        )
        frames = range(facts.total_frames or last + 1)
    total = facts.total_frames or max(frames, default=0) + 1
    width, height = facts.size
    for time, frame in keyframe_times(
        frames, every=every, fps=facts.fps, total_frames=total
    ):
        persons = []
        for number, track in enumerate(video.tracks):
            shape = shape_at(track, frame, interpolate=video.interpolate)
            if shape is None:
                continue
            x1, x2 = (min(max(shape.bbox[i], 0), width) for i in (0, 2))
            y1, y2 = (min(max(shape.bbox[i], 0), height) for i in (1, 3))
            if x2 - x1 < 1 or y2 - y1 < 1:
                summary.num_outside += 1
                continue
            summary.num_clipped += (x1, y1, x2, y2) != shape.bbox
            bbox = (x1 / width, y1 / height, x2 / width, y2 / height)
            actions = shape.actions or ((idle,) if idle else ())
            persons.append((number, bbox, actions))
        if not all(actions for _, _, actions in persons):
            summary.num_idle += 1
            continue
        lines = []
        for number, bbox, actions in persons:
            summary.num_persons += 1
            box = ','.join(f'{value:.5f}' for value in bbox)
            for action in dict.fromkeys(actions):
                summary.class_counts[action] += 1
                lines.append(
                    f'{facts.name},{_seconds(time)},{box},{ids[action]},{number}'
                )
        yield time, lines


def _action_ids(
    read: Sequence[Annotations], label_map: Path, idle: str | None
) -> dict[str, int]:
    """Action name -> id, of the label map if there is one.

    Raises ``ValueError`` for an action that the label map lacks, or a name that it
    cannot hold.
    """
    actions = list(dict.fromkeys(name for one in read for name in one.actions))
    if idle and idle not in actions:
        actions.append(idle)
    if not label_map.exists():
        wrong = next((name for name in actions if set(name) & set('"\r\n')), None)
        if wrong is not None:
            raise ValueError(
                f'The action {wrong!r} has a quote or a line end in its name, which a '
                'label map cannot hold; rename it.'
            )
        return {name: number for number, name in enumerate(actions, start=1)}
    ids = {name: number for number, name in read_label_names(str(label_map)).items()}
    lacking = next((name for name in actions if name not in ids), None)
    if lacking is not None:
        raise ValueError(
            f'{label_map}: the label map is there already and lacks the action '
            f'{lacking!r}; add it there, or remove the file to have it made anew.'
        )
    return ids


class _Attribute(NamedTuple):
    """How CVAT declares an attribute of a label."""

    kind: str  # 'checkbox', 'select', 'radio', 'number' or 'text'
    values: tuple[str, ...]


class _CvatReader:
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
            named = self.declared.get(label, {})
            tracks.append(
                [
                    shape._replace(
                        actions=self._actions(pairs, named, line)
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
            names=self._names(),
            size=self._size(),
            frames=self._frames(),
            tracks=tracks,
            interpolate=True,
        )
        return Annotations(
            videos=[video],
            actions=list(dict.fromkeys([*declared, *seen])),
            passed_over=passed_over,
        )

    def _wrong(self, message: str, line: int | None = None) -> ValueError:
        line = self.parser.CurrentLineNumber if line is None else line
        return _error(self.file, f'line {line}', message)

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
        frame = _whole(attributes.get('frame'))
        if frame is None or frame < 0:
            raise self._wrong(
                f'the frame of the box is {attributes.get("frame")!r}, no number from '
                '0 upwards; correct it.'
            )
        names = ('xtl', 'ytl', 'xbr', 'ybr')
        bbox = tuple(_number(attributes.get(name)) for name in names)
        if None in bbox or bbox[0] > bbox[2] or bbox[1] > bbox[3]:
            shown = ', '.join(f'{name}={attributes.get(name)!r}' for name in names)
            raise self._wrong(
                f'the box {shown} is not two corners, upper left and lower right; '
                'correct it.'
            )
        outside = attributes.get('outside', '0') in ('1', 'true', 'True')
        if boxes and frame <= boxes[-1][0].frame:
            raise self._wrong(
                f'frame {frame} comes after frame {boxes[-1][0].frame} in the track; '
                'a track has each frame once, in order.'
            )
        shape = Shape(frame, bbox, (), outside, f'line {line}')
        boxes.append((shape, self.pairs, line))

    def _end(self, tag: str) -> None:
        self.stack.pop()
        text, self.text = self.text.strip(), ''
        if 'track' in self.stack:
            if tag == 'attribute':
                self.pairs[self.attribute] = text
        elif 'attribute' in self.stack:
            self.declaring[tag] = text
        elif tag == 'attribute':
            values = self.declaring.get('values', '').splitlines()
            self.declared.setdefault(self.label, {})[self.declaring.get('name', '')] = (
                _Attribute(
                    self.declaring.get('input_type', 'text').lower(),
                    tuple(value.strip() for value in values),
                )
            )
            self.declaring = {}
        elif 'label' in self.stack:
            if tag == 'name':
                self.label = text
                self.declared.setdefault(text, {})
        elif tag in ('name', 'width', 'height', 'source', 'size') or 'frame' in tag:
            self.meta.setdefault(tag, text)

    def _is_wanted(self, attribute: str) -> bool:
        if self.wanted is not None:
            return attribute in self.wanted
        return attribute not in TOOL_ATTRIBUTES

    def _labels_with_actions(self) -> set[str]:
        """Labels of persons whose attributes hold actions, declared or not."""
        labels = {
            label
            for label, named in self.declared.items()
            for name, attribute in named.items()
            if self._is_wanted(name)
            and attribute.kind in ('checkbox', 'select', 'radio')
        }
        for label, boxes in self.tracks:
            named = self.declared.get(label, {})
            for _, pairs, _ in boxes:
                if any(n not in named and self._is_wanted(n) for n in pairs):
                    labels.add(label)
        return labels if self.persons is None else labels & set(self.persons)

    def _actions(
        self, pairs: dict[str, str], named: dict[str, _Attribute], line: int
    ) -> tuple[str, ...]:
        actions = []
        for name, value in pairs.items():
            if not self._is_wanted(name):
                continue
            is_switch = value.lower() in ('true', 'false')
            default = _Attribute('checkbox' if is_switch else 'select', ())
            kind, values = named.get(name, default)
            if kind == 'checkbox':
                actions += [name] * (value.lower() == 'true')
            elif kind in ('select', 'radio') and value.lower() not in NO_ACTION:
                if values and value not in values:
                    raise self._wrong(
                        f'the value {value!r} of the attribute {name!r} is not among '
                        f'those declared ({", ".join(values)}); correct it.',
                        line,
                    )
                actions.append(value)
        return tuple(dict.fromkeys(actions))

    def _declared_actions(self, has_actions: set[str]) -> list[str]:
        if not has_actions:
            return [
                label
                for label in self.declared
                if self.persons is None or label in self.persons
            ]
        actions = []
        for label in self.declared:
            if label not in has_actions:
                continue
            for name, (kind, values) in self.declared[label].items():
                if not self._is_wanted(name):
                    continue
                if kind == 'checkbox':
                    actions.append(name)
                elif kind in ('select', 'radio'):
                    actions += [v for v in values if v.lower() not in NO_ACTION]
        return actions

    def _names(self) -> list[str]:
        names = [self.meta.get('source', ''), self.meta.get('name', '')]
        names = [name for name in names if name]
        return list(dict.fromkeys([*names, Path(self.file).stem]))

    def _size(self) -> tuple[float, float] | None:
        size = tuple(_number(self.meta.get(key)) for key in ('width', 'height'))
        return size if all(value and value > 0 for value in size) else None

    def _frames(self) -> range | None:
        start = _whole(self.meta.get('start_frame', '0')) or 0
        stop, size = (_whole(self.meta.get(key)) for key in ('stop_frame', 'size'))
        step = _whole(self.meta.get('frame_filter', '').rpartition('step=')[2]) or 1
        if stop is None and size is None:
            return None
        return range(
            start, (start + (size - 1) * step if stop is None else stop) + 1, step
        )


def _read_coco(
    file: str,
    data: bytes,
    persons: Collection[str] | None,
    wanted: Collection[str] | None,
    first_frame: int,
) -> Annotations:
    content = _load_json(file, data)
    tables = {
        key: _table(file, content, key)
        for key in ('videos', 'images', 'annotations', 'categories')
    }
    labels = {
        _get(file, place, entry, 'id'): str(_get(file, place, entry, 'name')).strip()
        for place, entry in _entries(file, tables, 'categories')
    }
    videos: dict[object, AnnotatedVideo] = {}
    for place, entry in _entries(file, tables, 'videos'):
        name = str(_get(file, place, entry, 'name', 'file_name'))
        size = tuple(_number(entry.get(key)) for key in ('width', 'height'))
        fps = _number(entry.get('fps'))
        _add(
            file,
            place,
            videos,
            _get(file, place, entry, 'id'),
            AnnotatedVideo(
                file=file,
                names=list(dict.fromkeys([name, Path(name).name, Path(name).stem])),
                size=size if all(value and value > 0 for value in size) else None,
                fps=fps if fps and fps > 0 else None,
            ),
        )
    images: dict[object, tuple[object, int]] = {}  # id -> video id, frame
    frames: dict[object, set[int]] = {key: set() for key in videos}
    for place, entry in _entries(file, tables, 'images'):
        video_id = _get(file, place, entry, 'video_id')
        if video_id not in videos:
            raise _error(
                file, place, f'the video_id {video_id!r} is not among the videos.'
            )
        number = _whole(_get(file, place, entry, 'frame_id', 'frame_index'))
        if number is None or number < first_frame:
            raise _error(
                file,
                place,
                f'the frame {number!r} is no whole number from {first_frame} upwards; '
                'correct it, or say which number the first frame has.',
            )
        frame = number - first_frame
        if frame in frames[video_id]:
            raise _error(file, place, f'frame {number} of its video is there twice.')
        frames[video_id].add(frame)
        _add(file, place, images, _get(file, place, entry, 'id'), (video_id, frame))
        video = videos[video_id]
        size = tuple(_number(entry.get(key)) for key in ('width', 'height'))
        if video.size is None and all(value and value > 0 for value in size):
            video.size = size
    for key, video in videos.items():
        video.frames = sorted(frames[key])

    annotations = [
        (place, entry, _label(file, place, entry, labels))
        for place, entry in _entries(file, tables, 'annotations')
    ]
    if persons is not None:
        annotations = [one for one in annotations if one[2] in persons]
    given = [_coco_actions(entry, wanted) for _, entry, _ in annotations]
    has_actions = {
        label
        for (_, _, label), named in zip(annotations, given, strict=True)
        if named is not None
    }
    passed_over: Counter = Counter()
    tracks: dict[tuple, dict[int, Shape]] = {}
    for index, (place, entry, label) in enumerate(annotations):
        image_id = _get(file, place, entry, 'image_id')
        if image_id not in images:
            raise _error(
                file, place, f'the image_id {image_id!r} is not among the images.'
            )
        if has_actions and label not in has_actions:
            passed_over[label] += 1
            continue
        video_id, frame = images[image_id]
        actions = (given[index] or ()) if has_actions else (label,)
        shape = Shape(frame, _coco_bbox(file, place, entry), actions, False, place)
        track_id = _track_id(entry)
        track = (video_id, 'box', index) if track_id is None else (video_id, track_id)
        earlier = tracks.setdefault(track, {}).get(frame)
        if earlier is not None and earlier.bbox != shape.bbox:
            raise _error(
                file,
                place,
                f'track {track_id} has another box in this frame in {earlier.place}; '
                'correct the track id of one.',
            )
        if earlier is not None:  # one entry for each action
            shape = shape._replace(
                actions=tuple(dict.fromkeys(earlier.actions + actions))
            )
        tracks[track][frame] = shape
    for (video_id, *_), shapes in tracks.items():
        videos[video_id].tracks.append([shapes[frame] for frame in sorted(shapes)])
    if has_actions:
        names = sorted({name for named in given for name in named or ()})
    else:
        names = [n for n in labels.values() if persons is None or n in persons]
    return Annotations(
        videos=list(videos.values()),
        actions=list(dict.fromkeys(names)),
        passed_over=passed_over,
    )


def _load_json(file: str, data: bytes) -> dict:
    try:
        return json.loads(data.decode(json.detect_encoding(data)))
    except json.JSONDecodeError as error:
        raise _error(
            file,
            f'line {error.lineno}',
            f'the JSON is broken ({error.msg}); export it again.',
        ) from error
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].count(b'\n')
        raise _error(
            file, f'line {line}', 'the file is not UTF-8 text; save it as UTF-8.'
        ) from error


def _table(file: str, content: dict, key: str) -> list:
    table = content.get(key)
    if not isinstance(table, list):
        raise ValueError(
            f'{file}: the list {key!r} is missing; COCO with videos has videos, images '
            'with video_id and frame_id, annotations and categories.'
        )
    return table


def _entries(file: str, tables: dict, key: str) -> Iterator[tuple[str, dict]]:
    for index, entry in enumerate(tables[key]):
        place = f'{key}[{index}]'
        if not isinstance(entry, dict):
            raise _error(file, place, 'this is no JSON object; correct it.')
        yield place, entry


def _get(file: str, place: str, entry: dict, *keys: str) -> object:
    value = next((entry[key] for key in keys if entry.get(key) is not None), None)
    if value is None or isinstance(value, list | dict):
        raise _error(file, place, f'{" or ".join(keys)} is missing; add it.')
    return value


def _add(file: str, place: str, table: dict, key: object, value: object) -> None:
    if key in table:
        raise _error(file, place, f'the id {key!r} is there twice; correct one.')
    table[key] = value


def _label(file: str, place: str, entry: dict, labels: dict) -> str:
    category = _get(file, place, entry, 'category_id')
    if category not in labels:
        raise _error(
            file, place, f'the category_id {category!r} is not among the categories.'
        )
    return labels[category]


def _track_id(entry: dict) -> object:
    attributes = entry.get('attributes')
    given = [entry.get('track_id'), entry.get('instance_id')]
    if isinstance(attributes, dict):
        given.append(attributes.get('track_id'))
    return next((one for one in given if isinstance(one, int | str)), None)


def _coco_actions(
    entry: dict, wanted: Collection[str] | None
) -> tuple[str, ...] | None:
    """Actions of an annotation; None where it has no attribute that may hold any."""
    attributes = entry.get('attributes')
    if not isinstance(attributes, dict):
        return None
    actions, found = [], False
    for name, value in attributes.items():
        if name not in wanted if wanted is not None else name in TOOL_ATTRIBUTES:
            continue
        values = value if isinstance(value, list) else [value]
        for one in values:
            if isinstance(one, bool) or (wanted is not None and one in (0, 1)):
                found = True
                actions += [name] * bool(one)
            elif isinstance(one, str):
                found = True
                actions += [one.strip()] * (one.strip().lower() not in NO_ACTION)
        found = found or value == []
    return tuple(dict.fromkeys(actions)) if found else None


def _coco_bbox(file: str, place: str, entry: dict) -> tuple:
    bbox = entry.get('bbox')
    numbers = [_number(v) for v in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or None in numbers or min(numbers[2:]) < 0:
        raise _error(
            file, place, f'the bbox {bbox!r} is not [x, y, width, height]; correct it.'
        )
    x, y, width, height = numbers
    return x, y, x + width, y + height


def _is_among(names: Iterable[str], chosen: Collection[str]) -> bool:
    def stems(some: Iterable[str]) -> set[str]:
        return {Path(name).stem for name in some}

    return bool(stems(names) & stems(chosen))


def _error(file: str, place: str, message: str) -> ValueError:
    return ValueError(f'{file}, {place}: {message}')


def _number(value: object) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _seconds(time: float) -> str:
    return f'{time:.3f}'.rstrip('0').rstrip('.')
