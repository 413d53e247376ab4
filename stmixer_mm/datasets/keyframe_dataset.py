"""Keyframes of videos, annotated in AVA's format."""

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from mmaction.datasets import AVADataset
from mmengine.dataset import force_full_init
from mmengine.logging import MMLogger

from stmixer_mm.datasets.annotations.ava_csv import (
    KeyframeRow,
    check_custom_classes,
    raise_first,
    read_keyframe_rows,
    read_label_names,
    read_timestamp_keys,
    read_timestamp_rows,
)
from stmixer_mm.datasets.frames import find_sources, image_prefix, split_filename_tmpl
from stmixer_mm.datasets.packing import (
    add_proposals,
    pack_persons,
    unpack_bboxes,
    unpack_persons,
)
from stmixer_mm.errors import UserError
from stmixer_mm.registry import DATASETS


@DATASETS.register_module()
class KeyframeDataset(AVADataset):
    """Keyframes with person boxes and their actions, from an AVA csv file.

    A sample has ``gt_bboxes`` (k, 4) xyxy in [0, 1] until a decoding transform makes
    pixels of them, ``gt_labels`` (k, num_classes) multi-hot with the dummy column 0,
    ``entity_ids`` (k,), ``video_id``, ``timestamp``, ``timestamp_start``, ``img_key``,
    and ``filename`` (videos) or ``frame_dir`` and ``fps`` (extracted frames).

    Unlike the host's class it takes videos that start at 0 s and have their own frame
    rate, fractions of a second, and keyframes without any person; it tells the first
    fault of a file with its line; and it looks for all videos before training starts.
    Action ids within num_classes that the label file lacks are trained (AVA's label
    file of the 60 evaluated classes goes with annotations of all 80).

    Args:
        ann_file: AVA csv file: video_id,timestamp,x1,y1,x2,y2,action_id,person_id.
        pipeline: Transforms.
        label_file: Label map (pbtxt); gives ``metainfo['classes']``, the names of the
            columns 1, 2, ... of the labels.
        exclude_file: Keyframes to leave out, lines of video_id,timestamp.
        empty_keyframes_file: Keyframes known to show no person, lines of
            video_id,timestamp; they are added with k = 0.
        num_classes: Classes with the dummy class 0.
        custom_classes: Action ids to keep, in the order of the label columns from 1;
            num_classes must be one more than there are. Keyframes that show none of
            them are left out of training, and have k = 0 in tests.
        multilabel: False gives ``gt_labels`` (k, 1) of class numbers instead.
        data_root: Folder that all relative paths below are in.
        data_prefix: ``dict(img=folder)`` with the videos, named by their id with or
            without a suffix, or the frame folders, named by the id.
        use_frames: Read extracted frames instead of video files.
        fps: Frame rate of the extracted frames; videos know their own.
        filename_tmpl: Names of the extracted frames.
        start_index: Number of the first extracted frame.
        proposal_file: Boxes of persons for two-stage detectors, a pickle file, as of
            mmaction2 (no code of it is run): ``{img_key: (n, 4 or 5)}`` xyxy in
            [0, 1] and score. A sample then has ``proposals`` (m, 4), none where the
            file lacks its key (the host gives the whole frame there).
        person_det_score_thr: Keep proposals that score this, and always the best one.
        num_max_proposals: Keep this many at most, in the order of the file.
        timestamp_start: Timestamp of a video's first frame in seconds: 900 for AVA.
        timestamp_end: Timestamp of the end of the extracted frames (1800 for AVA);
            None counts the frames in each folder.
        test_mode: Validation or test.
        modality: Kind of input, for the host's transforms.
        metainfo, indices, serialize_data, lazy_init, max_refetch: As in mmengine's
            ``BaseDataset``. ``lazy_init=True`` reads and checks files at first use.

    Raises:
        FileNotFoundError: a file, video or frame folder is missing.
        ValueError: a line is faulty, classes do not fit, or no keyframe is left.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[dict | Callable],
        *,
        label_file: str | None = None,
        exclude_file: str | None = None,
        empty_keyframes_file: str | None = None,
        num_classes: int = 81,
        custom_classes: Sequence[int] | None = None,
        multilabel: bool = True,
        data_root: str | None = '',
        data_prefix: Mapping[str, str] | None = None,
        use_frames: bool = False,
        fps: float = 30,
        filename_tmpl: str = 'img_{:05}.jpg',
        start_index: int = 1,
        proposal_file: str | None = None,
        person_det_score_thr: float = 0.9,
        num_max_proposals: int = 1000,
        timestamp_start: float = 0,
        timestamp_end: float | None = None,
        test_mode: bool = False,
        modality: str = 'RGB',
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        def join(file: str | None) -> str | None:
            return os.path.join(data_root or '', file) if file else None

        split_filename_tmpl(filename_tmpl)
        if not 0 < fps < float('inf'):
            raise UserError(
                f'fps={fps:g} is no frame rate; give that of the extracted frames.'
            )
        label_file = join(label_file)
        names = read_label_names(
            label_file, num_classes=None if custom_classes else num_classes
        )
        if custom_classes is None:
            label_ids = list(range(1, num_classes))
        else:
            check_custom_classes(custom_classes, names, num_classes)
            label_ids = custom_classes = list(custom_classes)
        self.empty_keyframes_file = join(empty_keyframes_file)
        super().__init__(
            ann_file,
            pipeline,
            exclude_file=join(exclude_file),
            label_file=label_file,
            filename_tmpl=filename_tmpl,
            start_index=start_index if use_frames else 0,
            person_det_score_thr=person_det_score_thr,
            num_max_proposals=num_max_proposals,
            num_classes=num_classes,
            data_prefix=image_prefix(data_prefix),
            modality=modality,
            test_mode=test_mode,
            timestamp_start=timestamp_start,
            timestamp_end=timestamp_end,
            use_frames=use_frames,
            fps=fps,
            multilabel=multilabel,
            data_root=data_root,
            metainfo=metainfo,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=True,
            max_refetch=max_refetch,
        )
        if custom_classes is not None:
            # Not given to the host, which reads fewer forms of label maps.
            self.custom_classes = [0, *custom_classes]
        # Not given to the host, so that it adds no whole frames.
        self.proposal_file = join(proposal_file)
        if names:
            classes = tuple(names.get(label, f'class {label}') for label in label_ids)
            self._metainfo.setdefault('classes', classes)
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> list[dict]:
        """All keyframes of the annotation file, then those without a person."""
        num_ids = None if self.custom_classes else self.num_classes
        rows, faults = read_keyframe_rows(self.ann_file, num_classes=num_ids)
        raise_first(faults)
        keyframes: dict[str, list[KeyframeRow]] = {}
        annotated = set()
        for row in rows:
            key = row.key
            annotated.add(key)
            if self.custom_classes is None or row.action_id in self.custom_classes:
                keyframes.setdefault(key, []).append(row)
        persons = {key: self._persons(group) for key, group in keyframes.items()}
        firsts = {key: group[0] for key, group in keyframes.items()}
        if self.test_mode and firsts:
            # Detections there are wrong, as FrameMAPMetric counts them.
            for row in rows:
                if row.key not in firsts:
                    firsts[row.key] = row
                    persons[row.key] = self._persons([])
        for row in self._empty_rows():
            if row.key in annotated:
                raise UserError(
                    f'{self.empty_keyframes_file}, line {row.line}: keyframe '
                    f'{row.key} is listed as person-free, but {self.ann_file} has a '
                    'box there; remove one of them.'
                )
            persons[row.key] = self._persons([])
            firsts[row.key] = row
        if not firsts:
            raise UserError(
                f'{self.ann_file} holds no action of custom_classes '
                f'{self.custom_classes[1:]}; correct custom_classes.'
            )
        paths = find_sources(
            self.data_prefix['img'],
            dict.fromkeys(row.video_id for row in firsts.values()),
            self.ann_file,
            use_frames=self.use_frames,
        )
        shot_info = None
        if self.use_frames and self.timestamp_end is not None:
            seconds = self.timestamp_end - self.timestamp_start
            shot_info = (0, round(seconds * self._FPS))
        path_key = 'frame_dir' if self.use_frames else 'filename'
        infos = [
            {
                path_key: paths[row.video_id],
                'video_id': row.video_id,
                'timestamp': row.timestamp,
                'img_key': key,
                'shot_info': shot_info,
                'fps': self._FPS,
                'ann': persons[key],
            }
            for key, row in firsts.items()
        ]
        if self.proposal_file is not None:
            add_proposals(
                infos,
                self.proposal_file,
                score_thr=self.person_det_score_thr,
                max_num=self.num_max_proposals,
            )
        return infos

    def filter_data(self) -> list[dict]:
        """Leave out the keyframes of the exclude file."""
        excluded = read_timestamp_keys(self.exclude_file)
        kept = [info for info in self.data_list if info['img_key'] not in excluded]
        if not kept:
            raise UserError(
                f'{self.exclude_file} excludes all {len(self.data_list)} keyframes of '
                f'{self.ann_file}; give the exclude file of this split.'
            )
        MMLogger.get_current_instance().info(
            f'{self.ann_file}: {len(kept)} keyframes, '
            f'{len(self.data_list) - len(kept)} excluded.'
        )
        return kept

    def get_data_info(self, idx: int) -> dict:
        """The host's, and ``proposals`` where there is a proposal file."""
        info = super().get_data_info(idx)
        keys = 'gt_bboxes', 'gt_labels', 'entity_ids'
        packed = [info[key] for key in keys]
        if self.multilabel:
            persons = unpack_persons(packed, columns=self.num_classes)
        else:
            persons = unpack_persons(packed, columns=1, dtype=int)
        info.update(zip(keys, persons, strict=True))
        if self.multilabel:
            info['gt_labels'] = info['gt_labels'].astype(np.float32)
        if 'proposals' in info:
            info['proposals'] = unpack_bboxes(info['proposals'])
        return info

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Columns of ``gt_labels`` that a keyframe has, for ClassBalancedDataset."""
        labels = self.get_data_info(idx)['gt_labels']
        present = labels.any(axis=0).nonzero()[0] if self.multilabel else labels.ravel()
        return sorted({int(label) for label in present})

    def _persons(self, rows: Sequence[KeyframeRow]) -> dict:
        """Annotation of a keyframe, packed; rows of the same box are one person."""
        persons: dict[tuple, list[KeyframeRow]] = {}
        for row in rows:
            persons.setdefault(row.bbox_norm, []).append(row)
        if self.multilabel:
            labels = np.zeros((len(persons), self.num_classes), dtype=bool)
            for label, group in zip(labels, persons.values(), strict=True):
                label[[self._column(row.action_id) for row in group]] = True
        else:
            labels = np.zeros((len(persons), 1), dtype=int)
            for label, group in zip(labels, persons.values(), strict=True):
                if len(group) > 1:
                    raise UserError(
                        f'{self.ann_file}, line {group[1].line}: this box has several '
                        'actions, which needs multilabel=True.'
                    )
                label[0] = self._column(group[0].action_id)
        packed = pack_persons(
            np.array(list(persons), dtype=np.float32),
            labels,
            np.array([group[0].person_id for group in persons.values()], dtype=int),
        )
        # The keys that the host takes from it.
        return dict(zip(('gt_bboxes', 'gt_labels', 'entity_ids'), packed, strict=True))

    def _column(self, action_id: int) -> int:
        if self.custom_classes is None:
            return action_id
        return self.custom_classes.index(action_id)

    def _empty_rows(self) -> list:
        if self.empty_keyframes_file is None:
            return []
        rows, faults = read_timestamp_rows(self.empty_keyframes_file)
        raise_first(faults)
        return rows
