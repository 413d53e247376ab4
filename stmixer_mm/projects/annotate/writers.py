"""Files for annotation tools, in the forms that this package reads."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from stmixer_mm.files import write_atomically, write_json
from stmixer_mm.projects.annotate.records import AnnotatedVideo, Shape

PERSON = 'person'


def write_cvat(path: str | Path, video: AnnotatedVideo, actions: Sequence[str]) -> None:
    """Write "CVAT for video 1.1", to be uploaded to a task of the video.

    Args:
        path: The XML file.
        video: With its size, its frames and its tracks.
        actions: All that there are; each is a checkbox of the label "person".
    """
    root = ElementTree.Element('annotations')
    SubElement(root, 'version').text = '1.1'
    meta = SubElement(root, 'meta')
    task = SubElement(meta, 'task')
    SubElement(task, 'name').text = video.names[0]
    SubElement(task, 'size').text = str(len(video.frames))
    label = SubElement(SubElement(task, 'labels'), 'label')
    SubElement(label, 'name').text = PERSON
    attributes = SubElement(label, 'attributes')
    for action in actions:
        attribute = SubElement(attributes, 'attribute')
        for name, text in (
            ('name', action),
            ('mutable', 'True'),
            ('input_type', 'checkbox'),
            ('default_value', 'false'),
            ('values', 'false'),
        ):
            SubElement(attribute, name).text = text
    size = SubElement(task, 'original_size')
    for name, value in zip(('width', 'height'), video.size, strict=True):
        SubElement(size, name).text = f'{value:g}'
    SubElement(meta, 'source').text = video.names[0]
    for number, track in enumerate(video.tracks):
        places = dict(id=str(number), label=PERSON, source='auto')
        element = SubElement(root, 'track', places)
        for shape in track:
            _add_box(element, shape, actions)
    ElementTree.indent(root)
    write_atomically(path, ElementTree.tostring(root, 'utf-8', xml_declaration=True))


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


def write_coco(path: str | Path, video: AnnotatedVideo, actions: Sequence[str]) -> None:
    """Write COCO's JSON with videos: an image for each frame that was looked at.

    Args:
        path: The JSON file.
        video: With its size, its frame rate, its frames and its tracks.
        actions: All that there are; each is an attribute, true or false.
    """
    width, height = video.size
    boxes = [
        (shape, number)
        for number, track in enumerate(video.tracks)
        for shape in track
        if not shape.outside
    ]
    content = dict(
        videos=[
            dict(id=1, name=video.names[0], width=width, height=height, fps=video.fps)
        ],
        images=[
            dict(id=frame, video_id=1, frame_id=frame, width=width, height=height)
            for frame in video.frames
        ],
        annotations=[
            dict(
                id=number,
                image_id=shape.frame,
                category_id=1,
                track_id=track,
                bbox=_corner_and_sides(shape),
                attributes={action: action in shape.actions for action in actions},
                **(
                    {}
                    if not shape.segmentation
                    else dict(segmentation=shape.segmentation)
                ),
            )
            for number, (shape, track) in enumerate(boxes, start=1)
        ],
        categories=[dict(id=1, name=PERSON)],
    )
    write_json(path, content)


def _corner_and_sides(shape: Shape) -> list[float]:
    x1, y1, x2, y2 = shape.bbox
    return [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
