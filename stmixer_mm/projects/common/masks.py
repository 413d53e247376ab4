"""Masks of persons at keyframes: COCO's JSON beside a csv in AVA's format.

An image is a keyframe, whose ``file_name`` is ``video_id,timestamp`` as in the csv. An
annotation is a person in it, whose ``track_id`` is the person id of the csv; one with
``iscrowd`` covers persons whose masks are unknown.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_masks

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.files import write_atomically
from stmixer_mm.pictures import Mask, encode
from stmixer_mm.projects.common.ava_writer import AnnotatedPerson

PERSON = dict(id=1, name='person')  # the one category


class KeyframeMasks(NamedTuple):
    """The masks of a keyframe."""

    size: tuple[int, int]  # (h, w) of the frame
    masks: dict[int, Mask]  # by person id
    unclear: list[Mask]  # of persons whose masks are unknown


def mask_file(ann_file: str | Path) -> Path:
    """The file of an annotation file's masks."""
    return Path(ann_file).with_name(f'{Path(ann_file).stem}_masks.json')


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
        masks = {
            person.person_id: person.mask
            for person in persons
            if person.mask is not None
        }
        if persons and not masks:
            continue
        height, width = size = sizes[video]
        unclear = []
        for person in persons:
            if person.mask is None:
                box = np.multiply(person.bbox_norm, (width, height) * 2)
                (x1, y1), (x2, y2) = np.floor(box[:2]), np.ceil(box[2:])
                covered = np.zeros(size, bool)
                covered[int(y1) : int(y2), int(x1) : int(x2)] = True
                unclear.append(encode(covered))
        collected[keyframe_key(video, seconds)] = KeyframeMasks(size, masks, unclear)
    return collected


def write_masks(path: str | Path, keyframes: Mapping[str, KeyframeMasks]) -> None:
    """Write a file that :mod:`stmixer_mm.projects.masks` reads."""
    write_atomically(path, json.dumps(to_coco(keyframes)).encode())


def to_coco(keyframes: Mapping[str, KeyframeMasks]) -> dict:
    """The content of the JSON file; images are numbered from 1 in the order given."""
    images, annotations = [], []
    for number, (key, (size, masks, unclear)) in enumerate(keyframes.items(), start=1):
        height, width = size
        images.append(dict(id=number, file_name=key, width=width, height=height))
        for person_id, mask in [*masks.items(), *((None, mask) for mask in unclear)]:
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
