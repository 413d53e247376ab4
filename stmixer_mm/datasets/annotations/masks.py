"""Masks of persons at keyframes: COCO's JSON beside a csv in AVA's format.

An image is a keyframe, whose ``file_name`` is ``video_id,timestamp`` as in the csv. An
annotation is a person in it, whose ``track_id`` is the person id of the csv; one with
``iscrowd`` covers persons whose masks are unknown.
"""

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_masks

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.annotations.ava_writer import AnnotatedPerson
from stmixer_mm.errors import blame
from stmixer_mm.files import check_file, write_atomically
from stmixer_mm.structures import Mask, decode

PERSON = dict(id=1, name='person')  # the one category
MAX_SIDE = 2**14  # pixels of a frame


class KeyframeMasks(NamedTuple):
    """The masks of a keyframe."""

    size: tuple[int, int]  # (h, w) of the frame
    masks: dict[int, Mask]  # by person id
    unclear: list[Mask]  # of persons whose masks are unknown


def mask_file(ann_file: str | Path) -> Path:
    """The file of an annotation file's masks."""
    return Path(ann_file).with_name(f'{Path(ann_file).stem}_masks.json')


def move(
    mask: np.ndarray, scale: np.ndarray, shift: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """A mask (h, w), scaled, then shifted, by (x, y), in a frame (h, w); bool."""
    # OpenCV's integer coordinates are the centres of pixels, ours their corners.
    matrix = np.column_stack((np.diag(scale), shift + (scale - 1) / 2))
    return cv2.warpAffine(255 * mask.astype(np.uint8), matrix, size[::-1]) > 127


def read_segmentation(segmentation: object, size: tuple[int, int]) -> Mask | None:
    """RLE of what COCO's JSON calls a segmentation: polygons or RLE.

    Args:
        segmentation: As in the JSON file.
        size: (h, w) of the frame.

    Returns:
        None if there is none, or it has no pixel.

    Raises:
        ValueError: It is neither, or does not fit the frame.
    """
    if all(part == [] for part in segmentation or ()):
        return None
    height, width = size
    if isinstance(segmentation, dict):
        counts, given = segmentation.get('counts'), segmentation.get('size')
        if given != [height, width]:
            raise ValueError(
                f'its mask has the size {reprlib.repr(given)}, but the frame has '
                f'{height} rows and {width} columns'
            )
        if isinstance(counts, str):
            rle = dict(size=[height, width], counts=counts.encode())
            decode(rle)  # pycocotools never stops comparing counts that run over
        elif (
            not isinstance(counts, list)
            or not all(isinstance(one, int) and one >= 0 for one in counts)
            or sum(counts) != height * width
        ):
            raise ValueError('the counts of its RLE do not fill the frame')
        else:
            rle = coco_masks.frPyObjects(segmentation, height, width)
    else:
        polygons = [_read_polygon(part, size) for part in segmentation if part != []]
        rle = coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
    if not coco_masks.area(rle):
        return None
    return dict(size=[height, width], counts=rle['counts'].decode())


def _read_polygon(polygon: object, size: tuple[int, int]) -> list[float]:
    """x1, y1, x2, … of three or more points, at most a frame's size outside it."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError('its polygon is not a list x1, y1, x2, … of three points')
    points = np.array(polygon, float).reshape(-1, 2)
    sides = np.array(size[::-1])
    if not (np.abs(points / sides - 0.5) <= 1.5).all():  # false for NaN too
        raise ValueError('its polygon leaves the frame by more than the size of that')
    return points.ravel().tolist()


def collect_masks(
    keyframes: Mapping[tuple[str, float], Sequence[AnnotatedPerson]],
    sizes: Mapping[str, tuple[int, int]],
) -> dict[str, KeyframeMasks]:
    """Masks by ``img_key``, of keyframes with a known mask or without persons.

    Args:
        keyframes: The persons of each video and second.
        sizes: (h, w) of the frames of each video.
    """
    collected = {}
    for (video, seconds), persons in keyframes.items():
        masks = {one.person_id: one.mask for one in persons if one.mask is not None}
        if persons and not masks:
            continue
        height, width = size = sizes[video]
        unclear = []
        for person in persons:
            if person.mask is None:
                x1, y1, x2, y2 = np.multiply(person.bbox_norm, (width, height) * 2)
                box = [x1, y1, x2, y1, x2, y2, x1, y2]
                unclear.append(read_segmentation([box], size))
        collected[keyframe_key(video, seconds)] = KeyframeMasks(size, masks, unclear)
    return collected


def write_masks(path: str | Path, keyframes: Mapping[str, KeyframeMasks]) -> None:
    """Write a file that :func:`read_masks` reads."""
    write_atomically(path, json.dumps(to_coco(keyframes)).encode())


def to_coco(keyframes: Mapping[str, KeyframeMasks]) -> dict:
    """What COCO's JSON holds; images are numbered from 1 in the order given."""
    images, annotations = [], []
    for number, (key, (size, masks, unclear)) in enumerate(keyframes.items(), start=1):
        height, width = size
        images.append(dict(id=number, file_name=key, width=width, height=height))
        for person_id, mask in [*masks.items(), *((None, one) for one in unclear)]:
            of_person = {} if person_id is None else dict(track_id=person_id)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=PERSON['id'],
                    **of_person,
                    segmentation=mask,
                    bbox=coco_masks.toBbox(mask).tolist(),
                    area=int(coco_masks.area(mask)),
                    iscrowd=int(person_id is None),
                )
            )
    return dict(images=images, annotations=annotations, categories=[PERSON])


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
    mask = read_segmentation(entry.get('segmentation'), size)
    if mask is None:
        raise ValueError('its segmentation is missing or has no pixel')
    if entry.get('iscrowd'):
        unclear.append(mask)
    elif masks.setdefault(int(entry['track_id']), mask) is not mask:
        raise ValueError(f'track_id {entry["track_id"]} is twice in its image')
