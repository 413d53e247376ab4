"""A toy set in COCO's format: drawn shapes on a noisy ground.

python tests/test_projects/tiny_coco.py FOLDER
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

COLOURS = dict(disk=(60, 60, 220), square=(70, 200, 70), bar=(220, 120, 60))
WIDTH, HEIGHT = 144, 96


def draw(image, label, bbox):
    left, top, width, height = bbox
    colour = list(COLOURS.values())[label]
    if label == 0:
        centre = (left + width // 2, top + height // 2)
        cv2.ellipse(image, centre, (width // 2, height // 2), 0, 0, 360, colour, -1)
    else:
        cv2.rectangle(
            image, (left, top), (left + width - 1, top + height - 1), colour, -1
        )


def random_bbox(random, label, place):
    """A shape in one of three thirds of the image."""
    width = int(random.randint(20, WIDTH // 3 - 4))
    height = min(width if label < 2 else width * 2, HEIGHT - 2)
    left = place * WIDTH // 3 + int(random.randint(WIDTH // 3 - width))
    return [left, int(random.randint(HEIGHT - height)), width, height]


def write_coco(folder, num_images=16):
    """``train.json`` and ``images`` of 1 to 3 shapes; the last image has none.

    Category ids are not label + 1, as in COCO.
    """
    folder = Path(folder)
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    images, annotations = [], []
    for image_id in range(1, num_images + 1):
        image = random.randint(100, 130, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        for place in range(image_id % 3 + 1 if image_id < num_images else 0):
            label = int(random.randint(3))
            bbox = random_bbox(random, label, place)
            draw(image, label, bbox)
            found = dict(image_id=image_id, category_id=10 * (label + 1), bbox=bbox)
            further = dict(id=len(annotations) + 1, area=bbox[2] * bbox[3], iscrowd=0)
            annotations.append(found | further)
        name = f'{image_id:03d}.png'
        cv2.imwrite(str(folder / 'images' / name), image)
        images.append(dict(id=image_id, file_name=name, width=WIDTH, height=HEIGHT))
    categories = [
        dict(id=10 * number, name=name) for number, name in enumerate(COLOURS, start=1)
    ]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'train.json').write_text(json.dumps(content))


if __name__ == '__main__':
    write_coco(sys.argv[1])
