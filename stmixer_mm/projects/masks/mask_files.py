"""Reading mask files, see :mod:`stmixer_mm.datasets.annotations.masks`."""

import json
import re
from pathlib import Path

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.annotations.masks import KeyframeMasks
from stmixer_mm.errors import blame
from stmixer_mm.files import check_file
from stmixer_mm.structures import Mask, decode

MAX_SIDE = 2**14  # pixels of a frame


def read_masks(path: str | Path) -> dict[str, KeyframeMasks]:
    """Masks by ``img_key`` of the keyframe.

    Raises:
        UserError: naming the file and the entry.
    """
    check_file(path)
    remedy = 'write it again with tools/convert_annotations.py'
    with blame(f'{path} is not JSON with lists of images and annotations', remedy):
        content = json.loads(Path(path).read_bytes())
        lists = [list(content[name]) for name in ('images', 'annotations')]
    keyframes: dict[str, KeyframeMasks] = {}
    by_image: dict[object, KeyframeMasks] = {}
    for entries, name, read in zip(
        lists, ('images', 'annotations'), (_read_image, _read_person), strict=True
    ):
        for index, entry in enumerate(entries):
            with blame(f'{path}, {name}[{index}]', 'correct it'):
                read(entry, keyframes, by_image)
    return keyframes


def _read_image(entry: dict, keyframes: dict, by_image: dict) -> None:
    named = re.fullmatch(r'(.+),(\d+(?:\.\d+)?)', entry['file_name'])
    if not named:
        raise ValueError(f'file_name is {entry["file_name"]!r}, not video_id,timestamp')
    size = entry['height'], entry['width']
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in size):
        raise ValueError(f'height and width are {size}, not from 1 to {MAX_SIDE}')
    key = keyframe_key(named[1], float(named[2]))
    if key in keyframes or entry['id'] in by_image:
        raise ValueError('its id or its file_name is there twice')
    by_image[entry['id']] = keyframes[key] = KeyframeMasks(size, {}, [])


def _read_person(entry: dict, keyframes: dict, by_image: dict) -> None:
    if entry['image_id'] not in by_image:
        raise ValueError(f'no image has the image_id {entry["image_id"]!r}')
    size, masks, unclear = by_image[entry['image_id']]
    mask = _read_mask(entry.get('segmentation'), size)
    if entry.get('iscrowd'):
        unclear.append(mask)
    elif masks.setdefault(int(entry['track_id']), mask) is not mask:
        raise ValueError(f'track_id {entry["track_id"]} is twice in its image')


def _read_mask(segmentation: object, size: tuple[int, int]) -> Mask:
    """A mask in compressed RLE; ``ValueError`` for anything else."""
    if not isinstance(segmentation, dict) or not isinstance(
        segmentation.get('counts'), str
    ):
        raise ValueError('its segmentation is missing, or not a compressed RLE')
    if list(segmentation.get('size') or ()) != list(size):
        raise ValueError(f'its mask has another size than {size}, that of the frame')
    if not decode(segmentation).any():
        raise ValueError('its mask has no pixel')
    return segmentation
