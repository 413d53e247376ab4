"""Keyframes of videos, annotated in AVA's format."""

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from mmaction.datasets import AVADataset
from mmengine.dataset import force_full_init
from mmengine.fileio import load
from mmengine.logging import MMLogger

from stmixer_mm.registry import DATASETS

from .ava_csv import (
    KeyframeRow,
    check_custom_classes,
    raise_first,
    read_keyframe_rows,
    read_label_names,
    read_timestamp_keys,
    read_timestamp_rows,
)
from .frames import find_video


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
            num_classes must be one more than there are.
        multilabel: False gives ``gt_labels`` (k, 1) of class numbers instead.
        data_root: Folder that all relative paths below are in.
        data_prefix: ``dict(img=folder)`` with the videos, named by their id with or
            without a suffix, or the frame folders, named by the id.
        use_frames: Read extracted frames instead of video files.
        fps: Frame rate of the extracted frames; videos know their own.
        filename_tmpl: Names of the extracted frames.
        start_index: Number of the first extracted frame.
        proposal_file: Boxes of persons for two-stage detectors, a pickle file that you
            trust, as of mmaction2: ``{img_key: (n, 4 or 5)}`` xyxy in [0, 1] and
            score. A sample then has ``proposals`` (m, 4), none where the file lacks
            its key (the host gives the whole frame there).
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
        data_root: str = '',
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
            return os.path.join(data_root, file) if file else None

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
            custom_classes=custom_classes,
            data_prefix=dict(img='') if data_prefix is None else dict(data_prefix),
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
        # Not the host's self.proposals, so that it adds no whole frames.
        self._proposals = None
        if proposal_file is not None:
            self._proposals = read_proposals(join(proposal_file))
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
        for row in self._empty_rows():
            if row.key in annotated:
                raise ValueError(
                    f'{self.empty_keyframes_file}, line {row.line}: keyframe '
                    f'{row.key} is listed as person-free, but {self.ann_file} has a '
                    'box there; remove one of them.'
                )
            persons[row.key] = self._persons([])
            firsts[row.key] = row
        if not firsts:
            raise ValueError(
                f'{self.ann_file} holds no action of custom_classes '
                f'{self.custom_classes[1:]}; correct custom_classes.'
            )
        paths = self._locate(list(dict.fromkeys(r.video_id for r in firsts.values())))
        shot_info = None
        if self.use_frames and self.timestamp_end is not None:
            seconds = self.timestamp_end - self.timestamp_start
            shot_info = (0, round(seconds * self._FPS))
        path_key = 'frame_dir' if self.use_frames else 'filename'
        return [
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

    def filter_data(self) -> list[dict]:
        """Leave out the keyframes of the exclude file."""
        excluded = read_timestamp_keys(self.exclude_file)
        kept = [info for info in self.data_list if info['img_key'] not in excluded]
        if not kept:
            raise ValueError(
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
        if self._proposals is not None:
            found = self._proposals.get(info['img_key'], np.zeros((0, 4)))
            if found.shape[1] == 5 and len(found):
                scores = found[:, 4]
                found = found[scores >= min(self.person_det_score_thr, scores.max())]
            info['proposals'] = found[: self.num_max_proposals, :4].astype(np.float32)
        return info

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Columns of ``gt_labels`` that a keyframe has, for ClassBalancedDataset."""
        labels = self.get_data_info(idx)['gt_labels']
        present = labels.any(axis=0).nonzero()[0] if self.multilabel else labels.ravel()
        return sorted({int(label) for label in present})

    def _persons(self, rows: Sequence[KeyframeRow]) -> dict:
        """Annotation of a keyframe; rows of the same box are one person."""
        persons: dict[tuple, list[KeyframeRow]] = {}
        for row in rows:
            persons.setdefault(row.bbox_norm, []).append(row)
        if self.multilabel:
            labels = np.zeros((len(persons), self.num_classes), dtype=np.float32)
            for label, group in zip(labels, persons.values(), strict=True):
                label[[self._column(row.action_id) for row in group]] = 1
        else:
            labels = np.zeros((len(persons), 1), dtype=int)
            for label, group in zip(labels, persons.values(), strict=True):
                if len(group) > 1:
                    raise ValueError(
                        f'{self.ann_file}, line {group[1].line}: this box has several '
                        'actions, which needs multilabel=True.'
                    )
                label[0] = self._column(group[0].action_id)
        return dict(
            gt_bboxes=np.array(list(persons), dtype=np.float32).reshape(-1, 4),
            gt_labels=labels,
            entity_ids=np.array([g[0].person_id for g in persons.values()], dtype=int),
        )

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

    def _locate(self, video_ids: list[str]) -> dict[str, str]:
        """Path of each video or frame folder; ``FileNotFoundError`` if any lacks."""
        folder = self.data_prefix['img']
        paths = {name: self.locate(folder, name) for name in video_ids}
        missing = [name for name, path in paths.items() if path is None]
        if missing:
            what = 'frame folders' if self.use_frames else 'videos'
            named = ', '.join(missing[:5]) + (', ...' if len(missing) > 5 else '')
            raise FileNotFoundError(
                f'{len(missing)} of the {len(video_ids)} {what} of {self.ann_file} are '
                f'missing in {folder or "the current folder"} ({named}); put them '
                'there, correct data_prefix, or list them all with '
                'tools/check_dataset.py.'
            )
        return paths

    def locate(self, folder: str, video_id: str) -> str | None:
        """Path of a video or of its frame folder, None if there is none."""
        if not self.use_frames:
            return find_video(folder, video_id)
        path = os.path.join(folder, video_id)
        return path if os.path.isdir(path) else None


def read_proposals(path: str) -> dict[str, np.ndarray]:
    """Boxes (n, 4), or with scores (n, 5), of each ``img_key``.

    Raises:
        FileNotFoundError, ValueError: naming the file and the keyframe.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f'The proposal file {path} does not exist; correct proposal_file.'
        )
    proposals = {key: np.asarray(found) for key, found in load(path).items()}
    for key, found in proposals.items():
        if found.size == 0:
            proposals[key] = np.zeros((0, 4))
        elif found.ndim != 2 or found.shape[1] not in (4, 5):
            raise ValueError(
                f'{path}: the proposals of {key} have the shape {found.shape}; give '
                'rows of x1, y1, x2, y2 and, if you like, a score.'
            )
        elif not ((found[:, :4] >= 0) & (found[:, :4] <= 1)).all():
            raise ValueError(
                f'{path}: a proposal of {key} lies outside [0, 1]; divide its '
                'coordinates by the size of the frame.'
            )
    return proposals
