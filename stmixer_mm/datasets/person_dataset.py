"""The base of the datasets of keyframes with persons."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from mmaction.datasets import BaseActionDataset
from mmcv.transforms import BaseTransform
from mmengine.logging import MMLogger

from stmixer_mm.datasets.frames import find_source, split_filename_tmpl
from stmixer_mm.datasets.persons import Tracks, unpack_persons
from stmixer_mm.datasets.transforms import SampleKeyframeClip
from stmixer_mm.errors import UserError, blame


def join_root(data_root: str | None, file: str | None) -> str | None:
    """A file below a folder; None stays None."""
    return os.path.join(data_root or '', file) if file else None


class PersonDataset(BaseActionDataset):
    """Keyframes of videos or of extracted frames, with persons and their actions.

    A sample has ``gt_bboxes`` (k, 4) xyxy in [0, 1] until a decoding transform makes
    pixels of them, ``gt_labels`` (k, num_classes) multi-hot with the dummy column 0,
    ``entity_ids`` (k,), ``video_id``, ``timestamp``, ``img_key``, and ``filename``
    (videos) or ``frame_dir`` (extracted frames).

    A subclass reads keyframes in ``load_data_list``: dicts with ``video_id``,
    ``img_key`` and ``ann``, the bytes of persons (:func:`.make_persons`). Samples of one
    that fills ``tracks`` are clips: they have ``tracks``, those of their video.

    Args:
        ann_file: Annotation.
        pipeline: Transforms.
        num_classes: Classes with the dummy class 0.
        data_prefix: ``dict(img=folder)`` with the videos, named by their id with or
            without a suffix, or the frame folders, named by the id.
        use_frames: Read extracted frames instead of video files.
        filename_tmpl: Names of the extracted frames.
        start_index: Number of the first extracted frame.
        base: Arguments of mmengine's ``BaseDataset``, such as ``data_root``, the folder
            that relative paths are in, ``test_mode``, and ``lazy_init``, which reads
            and checks files at first use.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[dict | Callable],
        *,
        num_classes: int | None = None,
        data_prefix: Mapping[str, str] | None = None,
        use_frames: bool = False,
        filename_tmpl: str = 'img_{:05}.jpg',
        start_index: int = 1,
        **base,
    ) -> None:
        split_filename_tmpl(filename_tmpl)
        self.skips_faults = False  # set where all have been reported
        self.use_frames = use_frames
        self.tracks: dict[str, Tracks] = {}  # by video
        self.filename_tmpl = filename_tmpl
        super().__init__(
            ann_file,
            pipeline,
            data_prefix=dict(data_prefix or {'img': ''}),
            num_classes=num_classes,
            start_index=start_index if use_frames else 0,
            **base,
        )

    def find_transform(self, kind: type[BaseTransform]) -> BaseTransform | None:
        """The first of this type in the pipeline."""
        transforms = self.pipeline.transforms
        for transform in transforms:
            if isinstance(transform, kind):
                return transform
        return None

    @property
    def path_key(self) -> str:
        """The key of a sample's path to its video or its frames."""
        return 'frame_dir' if self.use_frames else 'filename'

    def find_sources(self, video_ids: Iterable[str]) -> dict[str, str]:
        """Path of each video or frame folder; ``UserError`` if any is missing.

        With ``skips_faults`` the missing ones are left out.
        """
        folder = self.data_prefix['img']
        paths = {
            name: find_source(folder, name, use_frames=self.use_frames)
            for name in video_ids
        }
        missing = [name for name, path in paths.items() if path is None]
        if self.skips_faults:
            return {name: path for name, path in paths.items() if path is not None}
        if missing:
            kind = 'frame folders' if self.use_frames else 'videos'
            raise UserError(
                f'{len(missing)} of the {len(paths)} {kind} of {self.ann_file} are '
                f'missing in {folder or "the current folder"}, such as {missing[0]}; put '
                'them there, correct data_prefix or use_frames, or list them all with '
                'tools/check_dataset.py.'
            )
        return paths

    def filter_data(self) -> list[dict]:
        """All keyframes; ``UserError`` if there is none."""
        if not self.data_list:
            raise UserError(
                f'{self.ann_file} has no keyframe for this dataset; correct its split or '
                'exclude_file.'
            )
        log = MMLogger.get_current_instance().info
        log(f'{self.ann_file}: {len(self.data_list)} keyframes.')
        return self.data_list

    def get_data_info(self, idx: int) -> dict:
        """The sample that the pipeline gets."""
        info = super().get_data_info(idx)
        persons = unpack_persons(info.pop('ann'), self.num_classes)
        if self.tracks:
            info['tracks'] = self.tracks[info['video_id']]
        return dict(
            info,
            filename_tmpl=self.filename_tmpl,
            gt_bboxes=persons['bbox_norm'].copy(),
            gt_labels=persons['labels'].astype(np.float32),
            entity_ids=persons['id'].copy(),
        )

    def get_cat_ids(self, idx: int) -> list[int]:
        """Actions of a sample, for ``ClassBalancedDataset``."""
        return self.get_data_info(idx)['gt_labels'].any(axis=0).nonzero()[0].tolist()

    def prepare_data(self, idx: int) -> dict | None:
        """A sample after the pipeline; ``None``: take another one.

        The metainfo of its ``data_samples`` gets ``keyframe_entry``: the frame that is
        the keyframe, or the last one seen before it.

        Raises:
            UserError: the pipeline fails; names the sample.
        """
        info = self.get_data_info(idx)
        with blame(f'The pipeline fails on {info["img_key"]}'):
            packed = self.pipeline(info)
        sampler = self.find_transform(SampleKeyframeClip)
        if sampler is not None and packed is not None and 'data_samples' in packed:
            packed['data_samples'].set_metainfo(dict(keyframe_entry=sampler.place))
        return packed
