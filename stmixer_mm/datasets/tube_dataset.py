"""Frames of videos, annotated by tubes: UCF101-24, JHMDB, MultiSports."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import KeyframeRow, read_boxes
from stmixer_mm.datasets.annotations.tube_annotations import (
    TubeAnnotations,
    read_tube_annotations,
)
from stmixer_mm.datasets.person_dataset import PersonDataset, join_root
from stmixer_mm.datasets.persons import make_persons, merge_equal
from stmixer_mm.errors import choose
from stmixer_mm.registry import DATASETS


def video_persons(
    classes: Mapping[int, Sequence[np.ndarray]],
    *,
    resolution: tuple[int, int],
    num_classes: int,
) -> np.ndarray:
    """Boxes (P,) of the tubes of a video by frame, see :func:`.make_persons`.

    Times are numbers of frames from 1, ids numbers of tubes.

    Args:
        classes: Label from 0 -> tubes (n, 5) of frame, x1, y1, x2, y2 in pixels.
        resolution: h, w in pixels; boxes are divided by it and clipped to [0, 1],
            where they may lose their area.
        num_classes: Labels and the dummy class 0.
    """
    tubes = [(label, tube) for label, group in classes.items() for tube in group]
    rows = np.concatenate([np.zeros((0, 5)), *(tube for _, tube in tubes)])
    numbers = np.repeat(np.arange(len(tubes)), [len(tube) for _, tube in tubes])
    columns = np.array([label + 1 for label, _ in tubes], int)[numbers]
    bboxes_norm = (rows[:, 1:] / np.tile(resolution[::-1], 2)).clip(0, 1)
    labels = np.eye(num_classes, dtype=bool)[columns]
    persons = make_persons(rows[:, 0], bboxes_norm, labels, numbers)
    return persons[np.argsort(rows[:, 0], kind='stable')]


def merge_persons(persons: np.ndarray) -> np.ndarray:
    """Equal boxes of a frame as one person, with the id of the first of them."""
    rows = np.column_stack([persons['time'], persons['bbox_norm']])
    first, labels = merge_equal(rows, persons['labels'])
    merged = persons[first]
    merged['labels'] = labels
    return merged


@DATASETS.register_module()
class TubeDataset(PersonDataset):
    """Frames with person boxes and their actions, from published tubes.

    A keyframe is a frame with a box. Of a sample, ``entity_ids`` are numbers of tubes
    in their video, ``timestamp`` is the number of the frame from 1 (which
    ``TubeFrameMAPMetric`` and ``VideoMAPMetric`` take), ``frame_index`` the same from
    0, ``img_key`` such as ``Basketball/v_Basketball_g01_c01,00001``; extracted frames
    have ``total_frames``.

    Boxes are clipped to the picture; those without an area, and those beyond the last
    frame of their video, are left out.

    Args:
        ann_file: Ground truth as published, see ``read_tube_annotations``; the classes
            are its labels.
        split: Split of the file, from 1; ``test_mode`` takes its test videos.
        frame_stride: Take every n-th keyframe of a video.
        all_frames: Keyframes are all frames, also those without a box: detections
            there count in ACT's protocol, and tubes are linked through them.
        bystanders_file: Csv of further persons, who do none of the actions, as lines of
            video_id,frame,x1,y1,x2,y2: the frame from 1, the box in [0, 1].
        filename_tmpl: Names of the extracted frames.
        shared: Arguments of :class:`PersonDataset`, as is the pipeline.

    Raises:
        UserError: a file, video or frame folder is missing, the file is faulty or has
            no such split, or no keyframe is left.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[dict | Callable],
        *,
        split: int = 1,
        frame_stride: int = 1,
        all_frames: bool = False,
        bystanders_file: str | None = None,
        filename_tmpl: str = '{:05}.jpg',
        **shared,
    ) -> None:
        self.bystanders_file = bystanders_file
        self.split = split
        self.frame_stride = frame_stride
        self.all_frames = all_frames
        super().__init__(ann_file, pipeline, filename_tmpl=filename_tmpl, **shared)

    def read_truth(self) -> tuple[TubeAnnotations, tuple[str, ...]]:
        """The file and the videos of the split; takes over labels and their number."""
        truth = read_tube_annotations(self.ann_file)
        splits = truth.test_videos if self.test_mode else truth.train_videos
        videos = choose('split', self.split, dict(enumerate(splits, start=1)))
        self.num_classes = len(truth.labels) + 1
        self._metainfo.setdefault('classes', truth.labels)
        return truth, tuple(dict.fromkeys(videos))

    def load_data_list(self) -> list[dict]:
        """All keyframes of the videos of the split."""
        truth, videos = self.read_truth()
        paths = self.find_sources(videos)
        bystanders = defaultdict(list)
        file = join_root(self.data_root, self.bystanders_file)
        for row in read_boxes(file) if file else ():
            bystanders[row.video_id].append(row)
        infos = []
        for name in videos:
            if name in paths:
                infos += self._keyframes(truth, name, paths[name], bystanders[name])
        return infos

    def choose_keyframes(self, frames: np.ndarray) -> np.ndarray:
        """The keyframes of a video that become samples."""
        return frames[:: self.frame_stride]

    def keep_persons(self, video_id: str, persons: np.ndarray) -> None:
        """Keep all boxes of a video, if samples need more than their own."""

    def _keyframes(
        self,
        truth: TubeAnnotations,
        video_id: str,
        path: str,
        bystanders: Sequence[KeyframeRow],
    ) -> list[dict]:
        total_frames, size = truth.nframes[video_id], truth.resolution[video_id]
        persons = video_persons(
            truth.gttubes[video_id], resolution=size, num_classes=self.num_classes
        )
        within = persons[persons['time'] <= total_frames]
        bboxes = within['bbox_norm']
        persons = within[(bboxes[:, 2:] > bboxes[:, :2]).all(axis=1)]
        # A box without area is no target, but its frame is evaluated.
        frames = np.unique((within if self.test_mode else persons)['time'])
        if self.all_frames:
            frames = np.arange(1, total_frames + 1)
        self.keep_persons(video_id, persons)
        persons = merge_persons(persons)
        if bystanders:
            persons = np.concatenate([persons, self._make_bystanders(bystanders)])
            persons = persons[np.argsort(persons['time'], kind='stable')]
        common = {'video_id': video_id, self.path_key: path}
        if self.use_frames:
            common['total_frames'] = total_frames
        frames = self.choose_keyframes(frames).astype(int)
        starts = np.searchsorted(persons['time'], frames)
        stops = np.searchsorted(persons['time'], frames, side='right')
        return [
            {
                **common,
                'timestamp': frame,
                'frame_index': frame - 1,
                'img_key': f'{video_id},{frame:05}',
                'ann': persons[start:stop].tobytes(),
            }
            for frame, start, stop in np.stack([frames, starts, stops], axis=1).tolist()
        ]

    def _make_bystanders(self, rows: Sequence[KeyframeRow]) -> np.ndarray:
        """Persons (P,) without an action and without a tube."""
        return make_persons(
            times=np.array([row.timestamp for row in rows]),
            bboxes_norm=np.array([row.bbox_norm for row in rows]),
            labels=np.zeros((len(rows), self.num_classes)),
            ids=np.full(len(rows), -1),
        )
