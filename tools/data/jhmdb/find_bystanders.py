"""Find the persons whom JHMDB does not annotate, with an RTMDet in ONNX.

JHMDB annotates one acting person in a video. Without the others, a detector learns that
they are background. Writes lines of video_id,frame,x1,y1,x2,y2, as the setting
bystanders_file of TubeDataset reads them.
"""

from pathlib import Path

from stmixer_mm.command_line import Count, Score, run_main
from stmixer_mm.datasets.annotations.tube_annotations import read_tube_annotations
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_writable_file, write_atomically

import cv2
import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from tqdm import tqdm

SIDE = 320  # of the network's input
PAD = 114
MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # BGR
PERSON = 0
MAX_IOU, MAX_COVER = 0.5, 0.7  # with the actor


def main(
    ann_file: Path,
    frames: Path,
    detector: Path,
    out: Path,
    *,
    stride: Count = 8,
    score_thr: Score = 0.4,
) -> None:
    """Args:
    ann_file: JHMDB-GT.pkl.
    frames: Folder of extract_frames.py.
    detector: RTMDet with nms, from images (1, 3, 320, 320) to boxes with scores, and
        labels.
    out: Csv to write.
    stride: Look into every n-th frame from the first on, as the dataset's frame_stride.
    score_thr: Leave out boxes with lower scores.
    """
    check_writable_file(out, purpose='out')
    with blame(f'{detector} cannot be run', "pip install 'stmixer_mm[export]'"):
        from onnxruntime import InferenceSession

        session = InferenceSession(str(detector))
    truth, lines = read_tube_annotations(ann_file), []
    for video_id, classes in tqdm(sorted(truth.gttubes.items()), unit='video'):
        rows = np.concatenate([tube for group in classes.values() for tube in group])
        height, width = truth.resolution[video_id]
        size = np.array([width, height, width, height])
        for frame in range(1, truth.nframes[video_id] + 1, stride):
            bboxes_norm = detect(
                session, frames / video_id / f'{frame:05}.jpg', score_thr
            )
            actors_norm = rows[rows[:, 0] == frame, 1:] / size
            for bbox_norm in bboxes_norm[~near(bboxes_norm, actors_norm)]:
                corners = ','.join(f'{value:.4f}' for value in bbox_norm)
                lines.append(f'{video_id},{frame},{corners}\n')
    write_atomically(out, ''.join(lines).encode())


def detect(session, file: Path, score_thr: float) -> np.ndarray:
    """Persons in a picture, (n, 4) in [0, 1]."""
    picture = cv2.imread(str(file))
    if picture is None:
        raise UserError(f'{file} is no picture; run extract_frames.py again.')
    size = np.array(picture.shape[1::-1])
    scale = SIDE / size.max()
    resized = cv2.resize(picture, None, fx=scale, fy=scale)
    image = np.full((SIDE, SIDE, 3), PAD, np.float32)
    image[: resized.shape[0], : resized.shape[1]] = resized
    image = ((image - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)[None]
    (dets,), (labels,) = session.run(None, {session.get_inputs()[0].name: image})
    dets = dets[(labels == PERSON) & (dets[:, 4] >= score_thr)]
    return (dets[:, :4] / scale / np.tile(size, 2)).clip(0, 1)


def near(bboxes: np.ndarray, actors: np.ndarray) -> np.ndarray:
    """(n,) bool: boxes (n, 4) that may be of one of the actors (k, 4)."""
    bboxes, actors = torch.from_numpy(bboxes), torch.from_numpy(actors)
    covers = bbox_overlaps(bboxes, actors) >= MAX_IOU
    covers |= bbox_overlaps(bboxes, actors, mode='iof') >= MAX_COVER
    covers |= bbox_overlaps(actors, bboxes, mode='iof').T >= MAX_COVER
    return covers.any(dim=1).numpy()


if __name__ == '__main__':
    run_main(main)
