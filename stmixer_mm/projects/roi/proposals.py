"""Boxes of persons from a file, for two-stage detectors."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.person_dataset import join_root
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import write_atomically
from stmixer_mm.plain_pickle import read_plain_pickle
from stmixer_mm.registry import DATASETS

_REMEDY = 'write it again'


@DATASETS.register_module()
class KeyframeProposalDataset(KeyframeDataset):
    """A :class:`KeyframeDataset` whose samples have ``proposals`` (n, 4).

    Args:
        ann_file: As in :class:`KeyframeDataset`, as is the pipeline.
        proposal_file: A pickle file, read without running its code: ``{img_key: (n, 4 or 5)}``
            xyxy in [0, 1] and score. n = 0 where it lacks a keyframe.
        person_det_score_thr: Keep proposals from this score on, and always the best.
        shared: Arguments of :class:`KeyframeDataset`.

    Raises:
        UserError: as :class:`KeyframeDataset`; also if the file is faulty, or has none
            of the keyframes.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[dict | Callable],
        *,
        proposal_file: str,
        person_det_score_thr: float = 0.9,
        data_root: str | None = '',
        **shared,
    ) -> None:
        self.proposal_file = join_root(data_root, proposal_file)
        self.person_det_score_thr = person_det_score_thr
        super().__init__(ann_file, pipeline, data_root=data_root, **shared)

    def load_data_list(self) -> list[dict]:
        """The keyframes, each with its proposals."""
        infos = super().load_data_list()
        keys = [info['img_key'] for info in infos]
        proposals = read_proposals(self.proposal_file, keys)
        for info, key in zip(infos, keys, strict=True):
            rows = proposals.get(key, np.zeros((0, 4)))
            if rows.shape[1] == 5 and len(rows):
                scores = rows[:, 4]
                rows = rows[scores >= min(self.person_det_score_thr, scores.max())]
            info['proposals'] = rows[:, :4].astype(np.float32).tobytes()
        return infos

    def get_data_info(self, idx: int) -> dict:
        """The sample that the pipeline gets."""
        info = super().get_data_info(idx)
        bboxes = np.frombuffer(info['proposals'], np.float32).reshape(-1, 4)
        return {**info, 'proposals': bboxes.copy()}


def read_proposals(path: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Boxes (n, 4), or with scores (n, 5), of each ``img_key``.

    Args:
        path: A pickle, read so that it cannot run code.
        keys: Of the keyframes that need proposals; the file may lack some.

    Raises:
        UserError: naming the file and the keyframe; also if it has none of the keys.
    """
    content = read_plain_pickle(path)
    with blame(f"{path} is not a dict from 'video_id,timestamp' to boxes", _REMEDY):
        items = content.items()
    proposals = {}
    for key, rows in items:
        with blame(f'{path}: the proposals of {key} cannot be read', _REMEDY):
            proposals[key] = _boxes(rows)
    if keys and proposals.keys().isdisjoint(keys):
        raise UserError(
            f'{path} has none of the {len(keys)} keyframes, such as {keys[0]!r}; give '
            'the proposal file of this split.'
        )
    return proposals


def write_proposals(path: str, detections: Mapping[str, Any], size: tuple[int, int]):
    """Write the persons of another detector as a proposal file.

    Args:
        path: The pickle file.
        detections: ``supervision.Detections`` of persons at each ``img_key``
            ('video_id,timestamp').
        size: (h, w) of the frames that their boxes are in.

    Raises:
        UserError: the file cannot be written.
    """
    height, width = size
    proposals = {}
    for key, persons in detections.items():
        scores = (
            np.ones(len(persons)) if persons.confidence is None else persons.confidence
        )
        bboxes = np.clip(persons.xyxy / (width, height, width, height), 0, 1)
        proposals[key] = np.column_stack([bboxes, scores]).astype(np.float32)
    write_atomically(path, pickle.dumps(proposals))


def _boxes(rows: Any) -> np.ndarray:
    bboxes = np.array(rows, dtype=float)
    if not bboxes.size:
        return np.zeros((0, 4))
    low, high = bboxes[:, :2], bboxes[:, 2:4]
    is_box = ((low >= 0) & (low <= high) & (high <= 1)).all()
    if bboxes.shape[1] not in (4, 5) or not is_box:
        raise ValueError(
            'they are not rows of x1, y1, x2, y2 in [0, 1] and maybe a score'
        )
    return bboxes
