"""Base of the metrics on UCF101-24, JHMDB, MultiSports and their like."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.annotations.tube_annotations import read_tube_annotations
from stmixer_mm.errors import UserError, choose
from stmixer_mm.evaluation.functional.matching import Boxes, restore_pixels, take
from stmixer_mm.evaluation.functional.protocols import Protocol
from stmixer_mm.evaluation.functional.tubelet_linking import at_every_frame
from stmixer_mm.evaluation.functional.tubes import Tubes, join_tubes, remake
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.predictions import (
    Detections,
    Instances,
    join_detections,
    to_numpy,
)

# Labels that published evaluators leave out: MultiSports' and mmaction2's.
EXCLUDED_LABELS = {
    'multisports': (
        'aerobic kick jump',
        'aerobic off axis jump',
        'aerobic butterfly jump',
        'aerobic balance turn',
        'basketball save',
        'basketball jump ball',
    )
}


class TubeMetric(DetectionMetric):
    """Base of the metrics on tube annotations.

    Predictions are ``pred_instances`` with ``bboxes`` (n, 4) xyxy in [0, 1] and
    ``scores`` (n, labels + 1), column 0 the dummy; or of tubelets ``bboxes`` (n, K, 4)
    and ``person_scores`` (n, K), with ``clip_frames`` (K,) in the sample, the numbers of
    the clip's frames. Unknown videos do not count, nor do frames beyond the end of a
    video.

    Args:
        ann_file: Ground-truth pickle, see ``read_tube_annotations``.
        split: Split whose test videos are evaluated, from 1.
        protocol: Name of a published evaluator, as ``'act'`` (UCF101-24, JHMDB) or
            ``'multisports'``, or a record, see ``parse_protocol``. None: ``'act'``, but
            the mean is over the classes with ground truth, not all.
        frames: Those in which detections count: ``'all'`` frames of the test videos
            (ACT, MOC, MultiSports), or the ``'annotated'`` ones, in which a tube of any
            label has a box (YOWO); None: by protocol.
        excluded_labels: Labels that do not count, or ``'multisports'`` for those that
            its evaluators leave out.
        shared: Arguments of :class:`DetectionMetric`.
    """

    model_score_thr = 0.01  # as in ACT's scripts
    places = 'videos'

    def __init__(
        self,
        ann_file: str,
        *,
        split: int = 1,
        protocol: str | Protocol | Mapping | None = None,
        frames: str | None = None,
        excluded_labels: str | Sequence[str] = (),
        **shared: Any,
    ) -> None:
        usual = dict(base='act', class_average='gt')
        super().__init__(protocol=usual if protocol is None else protocol, **shared)
        if protocol is None:
            self.protocol_name = 'act'
        choose('frames', frames, dict.fromkeys(('all', 'annotated', None)))
        frames = frames or self.protocol.frames
        if frames == 'all' and self.protocol.every > 1:
            raise UserError(
                f"every={self.protocol.every} is of the annotated frames, but frames='all' "
                "of the protocol; set frames='annotated' or every=1."
            )
        self.protocol = self.protocol._replace(frames=frames)
        (source,) = self._paths(ann_file)
        truth = read_tube_annotations(source)
        splits = dict(enumerate(truth.test_videos, start=1))
        self.listed_videos = choose('split', split, splits)  # as files number them
        self._set_labels(truth.labels, excluded_labels)
        self.videos = tuple(dict.fromkeys(self.listed_videos))
        self.video_numbers = {name: n for n, name in enumerate(self.videos)}
        self.nframes = [truth.nframes[name] for name in self.videos]
        sizes = [truth.resolution[name] for name in self.videos]
        # Of each video, what makes boxes in [0, 1] boxes in pixels.
        self.scales = np.array([(w, h, w, h) for h, w in sizes], dtype=float)
        # By column; a sequence is the number of a video.
        self.gts: dict[int, Tubes] = {}
        for column in range(1, self.num_classes):
            tubes = []
            for name, number in self.video_numbers.items():
                gttubes = truth.gttubes[name].get(column - 1, ())
                for tube in self._true_tubes(gttubes):
                    if len(tube) > self.protocol.drop_last_frame:
                        rows = self._true_rows(tube, self.scales[number])
                        tubes.append((number, rows, 1))
            self.gts[column] = join_tubes(tubes)
        if not any(len(self.gts[column].sequences) for column in self.class_names):
            raise UserError(
                f'{source} has no tube of an evaluated label in the test videos of '
                f'split {split}; give the split that is tested, or correct '
                'excluded_labels.'
            )
        last_true = max(tubes.frames.max(initial=0) for tubes in self.gts.values())
        # A frame of a video has one number, video * limit + frame.
        self.frame_limit = max(*self.nframes, last_true) + 1
        self._annotated = self._annotated_frames()
        # By number; None for all.
        self._counted_frames = None if frames == 'all' else {*self._annotated.tolist()}

    def _annotated_frames(self) -> np.ndarray:
        """Numbers of the frames that count by ``frames`` and ``every``, ascending."""
        # Of labels that count alone, or of all.
        columns = self.class_names if self.protocol.frames == 'evaluated' else self.gts
        boxes = [self.gt_boxes(column) for column in columns]
        frames = np.unique(np.concatenate([gts.frames for gts in boxes]))
        videos = frames // self.frame_limit
        ranks = np.arange(len(videos)) - np.searchsorted(videos, videos)
        return frames[ranks % self.protocol.every == 0]

    def counts(self, name: str, frame: int) -> bool:
        """True if detections in a frame count; in unknown videos all do."""
        video = self.video_numbers.get(name)
        is_free = video is None or self._counted_frames is None
        return is_free or video * self.frame_limit + frame in self._counted_frames

    def _true_tubes(self, tubes: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return remake(tubes) if self.protocol.remade else tubes

    def _true_rows(self, tube: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Rows (n, 5) of a true tube, with its boxes as the protocol has them."""
        rules = self.protocol
        tube = tube[: len(tube) - rules.drop_last_frame]
        bboxes = rules.true_boxes.move(rules.true_boxes.fit(tube[:, 1:], size))
        return np.column_stack([tube[:, 0], self._scaled(bboxes, size)])

    def _scaled(self, bboxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) in pictures of sizes (..., 4), in the pixels of the protocol."""
        if self.protocol.size is None:
            return bboxes
        return bboxes * np.tile(self.protocol.size, 2) / sizes

    def _set_labels(self, labels: Sequence[str], excluded: str | Sequence[str]) -> None:
        if isinstance(excluded, str):
            excluded = choose('excluded_labels', excluded, EXCLUDED_LABELS)
        for label in excluded:
            choose('excluded_labels', label, dict.fromkeys(labels))
        names = dict(enumerate(labels, start=1))
        names = {n: label for n, label in names.items() if label not in excluded}
        self._set_classes(names, len(labels) + 1)

    def gt_boxes(self, column: int) -> Boxes:
        tubes = self.gts[column]
        videos = np.repeat(tubes.sequences, tubes.lengths)
        frames = videos * self.frame_limit + tubes.frames
        order = np.argsort(frames, kind='stable')
        return take(Boxes(frames, tubes.bboxes, np.ones(len(order))), order)

    def _join(self, parts: list[dict]) -> Detections:
        # Boxes in the test videos, in pixels of 64 bits.
        by_key = {part['key']: part for part in parts}
        video_keys = self._of_known_videos(by_key)
        keys = []
        for key in sorted(video_keys, key=_file_order):
            name, frame = key[:2]
            if frame <= self.nframes[self.video_numbers[name]]:
                keys.append(key)
        numbers, parts = list(map(self._numbers, keys)), [by_key[key] for key in keys]
        detections = join_detections(numbers, parts, self._keyframe_key)
        sizes = self.scales[detections.frames // self.frame_limit]
        pixels = restore_pixels(detections.bboxes * sizes)
        return detections._replace(
            bboxes=self.protocol.detected_boxes.fit(pixels, sizes)
        )

    def _of_known_videos(self, keys: Collection[tuple]) -> list[tuple]:
        """The keys of test videos; the first entry of a key names its video."""
        self._compare({key[0] for key in keys}, self.videos)
        return [key for key in keys if key[0] in self.video_numbers]

    def _clip(
        self, sample: dict, instances: Instances
    ) -> tuple[str, int, np.ndarray, Instances]:
        """Video, keyframe, numbers (F,) of the clip's frames, and instances in these.

        Of tubelets these are all frames of the clip, also those between the ones that
        the model has seen.
        """
        name, frame = sample['video_id'], sample['timestamp']
        if frame % 1 != 0 or frame < 1:
            raise UserError(
                f'A prediction of {name} has the timestamp {frame:g}, which is not the '
                'number of a frame; number frames in whole numbers from 1.'
            )
        if instances.person_scores is None:
            return name, int(frame), np.array([frame], dtype=int), instances
        clip_frames = np.asarray(to_numpy(sample['clip_frames']))
        scores = instances.scores
        if scores.ndim == 3:
            _, scores = at_every_frame(clip_frames, scores)
        table = np.dstack([instances.bboxes, instances.person_scores])
        frames, table = at_every_frame(clip_frames, table)
        tubelets = Instances(table[..., :4], scores, table[..., 4])
        return name, int(frame), np.array(frames), tubelets

    def _numbers(self, key: tuple) -> int | np.ndarray:
        """Number of the frame, or numbers of the frames, that a result is of."""
        name, frame = key[:2]
        return self.video_numbers[name] * self.frame_limit + frame

    def _keyframe_key(self, number: int) -> str:
        video, frame = divmod(number, self.frame_limit)
        return keyframe_key(self.videos[video], frame)


def _file_order(key: tuple) -> tuple:
    """Order of keys, for equal scores: in YOWO the first file by name counts first."""
    return key[0].replace('/', '_'), *key
