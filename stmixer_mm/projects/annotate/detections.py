"""Detections as files for annotation tools, which this package reads again."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from stmixer_mm.files import write_atomically, write_json
from stmixer_mm.projects.annotate.records import Shape
from stmixer_mm.structures import Keyframe, VideoDetections, result_format

PERSON = 'person'


@result_format('cvat', '.xml')
def write_cvat(found: VideoDetections, path: Path) -> None:
    """Write "CVAT for video 1.1", to be uploaded to a task of the video.

    Each action is a checkbox of the label "person".
    """
    actions, name = _actions(found), Path(found.source).name
    root = ElementTree.Element('annotations')
    _add(root, version='1.1')
    meta = SubElement(root, 'meta')
    task = SubElement(meta, 'task')
    _add(task, name=name, size=found.total_frames)
    label = SubElement(SubElement(task, 'labels'), 'label')
    _add(label, name=PERSON)
    attributes = SubElement(label, 'attributes')
    checkbox = dict(mutable='True', input_type='checkbox')
    checkbox |= dict(default_value='false', values='false')
    for action in actions:
        _add(SubElement(attributes, 'attribute'), name=action, **checkbox)
    _add(SubElement(task, 'original_size'), width=found.width, height=found.height)
    _add(meta, source=name)
    for number, track in enumerate(_tracks(found)):
        places = dict(id=str(number), label=PERSON, source='auto')
        element = SubElement(root, 'track', places)
        for shape in track:
            _add_box(element, shape, actions)
    ElementTree.indent(root)
    write_atomically(path, ElementTree.tostring(root, 'utf-8', xml_declaration=True))


def _add(parent: ElementTree.Element, **texts: object) -> None:
    for name, text in texts.items():
        SubElement(parent, name).text = str(text)


def _add_box(track: ElementTree.Element, shape: Shape, actions: Sequence[str]) -> None:
    corners = zip(('xtl', 'ytl', 'xbr', 'ybr'), shape.bbox, strict=True)
    box = SubElement(
        track,
        'box',
        dict(frame=str(shape.frame), keyframe='1', outside=str(int(shape.outside)))
        | dict(occluded='0', z_order='0')
        | {name: f'{value:.2f}' for name, value in corners},
    )
    for action in actions:
        attribute = SubElement(box, 'attribute', name=action)
        attribute.text = str(action in shape.actions).lower()


@result_format('coco')
def write_coco(found: VideoDetections, path: Path) -> None:
    """Write COCO's JSON with videos: an image for each frame that was looked at.

    Each action is an attribute, true or false.
    """
    actions, annotations = _actions(found), []
    for number, track in enumerate(_tracks(found)):
        for shape in track:
            if shape.outside:
                continue
            x1, y1, x2, y2 = shape.bbox
            annotation = dict(
                id=len(annotations) + 1,
                image_id=shape.frame,
                category_id=1,
                track_id=number,
                bbox=[round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                attributes={action: action in shape.actions for action in actions},
            )
            if shape.segmentation:
                annotation['segmentation'] = shape.segmentation
            annotations.append(annotation)
    size = dict(width=found.width, height=found.height)
    frames = sorted({keyframe.frame_index for keyframe in _within(found)})
    content = dict(
        videos=[dict(id=1, name=Path(found.source).name, fps=found.fps, **size)],
        images=[dict(id=n, video_id=1, frame_id=n, **size) for n in frames],
        annotations=annotations,
        categories=[dict(id=1, name=PERSON)],
    )
    write_json(path, content)


def _actions(found: VideoDetections) -> tuple[str, ...]:
    done = {
        one.action
        for keyframe in found.keyframes
        for person in keyframe.persons
        for one in person.actions
    }
    return found.classes or tuple(sorted(done))


def _within(found: VideoDetections) -> list[Keyframe]:
    """The keyframes, without those predicted for after the video's end."""
    return [
        one
        for one in found.keyframes
        if one.ahead_s is None or one.frame_index < found.total_frames
    ]


def _tracks(found: VideoDetections) -> list[list[Shape]]:
    """Persons with ids as tracks, every other person as a track of its own."""
    tracks: dict[object, list[Shape]] = {}
    keyframes = _within(found)
    for number, keyframe in enumerate(keyframes):
        here = set()
        for row, person in enumerate(keyframe.persons):
            shape = Shape(
                frame=keyframe.frame_index,
                bbox=person.bbox,
                outside=False,
                actions=tuple(one.action for one in person.actions),
                segmentation=person.mask,
            )
            key = (number, row) if person.id is None else person.id
            tracks.setdefault(key, []).append(shape)
            here.add(key)
        for key, track in tracks.items():
            if key not in here and not track[-1].outside:
                left = dict(frame=keyframe.frame_index, outside=True)
                track.append(track[-1]._replace(**left))
    after = keyframes[-1].frame_index + 1 if keyframes else 0
    for track in tracks.values():
        if not track[-1].outside and after < found.total_frames:
            track.append(track[-1]._replace(frame=after, outside=True))
    return list(tracks.values())
