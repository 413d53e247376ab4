"""Reading mask files, see :mod:`stmixer_mm.projects.common.masks`."""

import json
import re
from pathlib import Path

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.errors import blame
from stmixer_mm.files import check_file
from stmixer_mm.pictures import check_frame_size, decode, encode
from stmixer_mm.projects.common.masks import KeyframeMasks


def read_masks(path: str | Path) -> dict[str, KeyframeMasks]:
    """Masks by ``img_key`` of the keyframe.

    Raises:
        UserError: naming the file and the entry.
    """
    check_file(path)
    remedy = 'write it again with tools/convert_annotations.py'
    with blame(f'{path} is not JSON with lists of images and annotations', remedy):
        content = json.loads(Path(path).read_bytes())
        images, persons = (list(content[name]) for name in ('images', 'annotations'))
    by_image: dict[object, KeyframeMasks] = {}
    keyframes: dict[str, KeyframeMasks] = {}
    for index, image in enumerate(images):
        with blame(f'{path}, images[{index}]', 'correct it'):
            key = _read_key(image['file_name'])
            if key in keyframes or image['id'] in by_image:
                raise ValueError('its id or its file_name is there twice')
            check_frame_size(image['height'], image['width'])
            empty = KeyframeMasks((image['height'], image['width']), {}, [])
            by_image[image['id']] = keyframes[key] = empty
    for index, person in enumerate(persons):
        with blame(f'{path}, annotations[{index}]', 'correct it'):
            _read_person(person, by_image[person['image_id']])
    return keyframes


def _read_key(name: str) -> str:
    named = re.fullmatch(r'(.+),(\d+(?:\.\d+)?)', name)
    if not named:
        raise ValueError(f'file_name is {name!r}, not video_id,timestamp')
    return keyframe_key(named[1], float(named[2]))


def _read_person(person: dict, keyframe: KeyframeMasks) -> None:
    mask = person['segmentation']
    if not isinstance(mask, dict) or tuple(mask['size']) != keyframe.size:
        raise ValueError(f'its segmentation is no RLE of the size {keyframe.size}')
    mask = encode(decode(mask))
    if person.get('iscrowd'):
        keyframe.unclear.append(mask)
    elif keyframe.masks.setdefault(int(person['track_id']), mask) is not mask:
        raise ValueError(f'track_id {person["track_id"]} is twice in its image')
