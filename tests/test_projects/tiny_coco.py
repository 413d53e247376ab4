"""A toy set in COCO's format: drawn shapes on a noisy ground.

python tests/test_projects/tiny_coco.py FOLDER
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('disk', 'square', 'bar')
COLOURS = ((60, 60, 220), (70, 200, 70), (220, 120, 60))


def draw_shape(image, label, bbox):
    left, top, width, height = bbox
    corner = (left + width - 1, top + height - 1)
    if label == 0:
        centre = (left + width // 2, top + height // 2)
        axes = (width // 2, height // 2)
        cv2.ellipse(image, centre, axes, 0, 0, 360, COLOURS[label], -1)
    else:
        cv2.rectangle(image, (left, top), corner, COLOURS[label], -1)


def write_coco(folder, *, num_images=16, size=(144, 96), seed=0):
    """Images of 1 to 3 shapes (w, h); the last image has none. Returns the json file.

    ``train.json`` in the folder lists them, ``images`` holds them. Category ids are
    not label + 1, as in COCO.
    """
    folder = Path(folder)
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    images, annotations = [], []
    width, height = size
    for image_id in range(num_images):
        image = random.randint(100, 130, (height, width, 3)).astype(np.uint8)
        count = 0 if image_id == num_images - 1 else 1 + image_id % 3
        for place in range(count):
            label = int(random.randint(3))
            # Each in a third of the image of its own.
            side_w = int(random.randint(20, width // 3 - 4))
            side_h = side_w if label < 2 else side_w * 2
            side_h = min(side_h, height - 2)
            left = place * width // 3 + int(random.randint(width // 3 - side_w))
            top = int(random.randint(height - side_h))
            bbox = [left, top, side_w, side_h]
            draw_shape(image, label, bbox)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id + 1,
                    category_id=10 * (label + 1),
                    bbox=bbox,
                    area=side_w * side_h,
                    iscrowd=0,
                )
            )
        name = f'{image_id:03d}.png'
        cv2.imwrite(str(folder / 'images' / name), image)
        images.append(dict(id=image_id + 1, file_name=name, width=width, height=height))
    categories = [
        dict(id=10 * (label + 1), name=name) for label, name in enumerate(CLASSES)
    ]
    content = dict(images=images, annotations=annotations, categories=categories)
    file = folder / 'train.json'
    file.write_text(json.dumps(content))
    return file


if __name__ == '__main__':
    print(write_coco(sys.argv[1]))
