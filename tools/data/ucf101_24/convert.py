"""Convert the corrected annotation of UCF101-24 (pyannot.pkl) to the tubelet detector's form.

The annotation is github.com/gurkirt/corrected-UCF101-Annots; every video that the list
of test videos lacks is one of training.
"""

import pickle
from pathlib import Path

from stmixer_mm.command_line import run_main
from stmixer_mm.datasets.annotations.ava_csv import read_text
from stmixer_mm.errors import blame
from stmixer_mm.files import check_writable_file, write_atomically
from stmixer_mm.plain_pickle import read_plain_pickle

import numpy as np

RESOLUTION = (240, 320)  # h, w


def main(pyannot: Path, test_list: Path, out: Path) -> None:
    """Args:
    pyannot: pyannot.pkl.
    test_list: Names of the test videos, as testlist01.txt.
    out: Pickle to write, such as UCF101v2-GT.pkl.
    """
    check_writable_file(out, purpose='out', inputs=[pyannot, test_list])
    remedy = 'fetch it again'
    annotations = read_plain_pickle(str(pyannot), kind='an annotation', remedy=remedy)
    test_videos = [
        line.split('.')[0] for line in read_text(str(test_list)).split() if '/' in line
    ]
    with blame(f'{pyannot} is not as the corrected annotation is published', remedy):
        content = convert(annotations, test_videos)
    write_atomically(out, pickle.dumps(content, protocol=2))


def convert(annotations: dict[str, dict], test_videos: list[str]) -> dict:
    """The content of the pickle, see :mod:`stmixer_mm.datasets.annotations.tube_annotations`."""
    tubes = {}
    for video, content in annotations.items():
        video_tubes = tubes[video] = {}
        for annotation in content['annotations']:
            tube = to_tube(annotation['boxes'], int(annotation['sf']))
            video_tubes.setdefault(int(annotation['label']), []).append(tube)
    annotated_test_videos = [video for video in test_videos if video in annotations]
    return {
        'labels': sorted({video.split('/')[0] for video in annotations}),
        'train_videos': [sorted(annotations.keys() - {*annotated_test_videos})],
        'test_videos': [annotated_test_videos],
        'nframes': {
            video: int(content['numf']) for video, content in annotations.items()
        },
        'resolution': dict.fromkeys(annotations, RESOLUTION),
        'gttubes': tubes,
    }


def to_tube(boxes: np.ndarray, first_frame: int) -> np.ndarray:
    """Boxes (n, 4) of x, y, w, h as a tube (n, 5) of frame, x1, y1, x2, y2.

    ``first_frame`` counts from 0, the tube's frames from 1.
    """
    boxes = np.asarray(boxes, np.float32)  # sums of bytes would wrap around
    frames = first_frame + 1 + np.arange(len(boxes), dtype=np.float32)
    return np.column_stack([frames, boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


if __name__ == '__main__':
    run_main(main)
