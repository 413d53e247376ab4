"""What the datasets of keyframes with persons share."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from mmaction.datasets import BaseActionDataset
from mmcv.transforms import BaseTransform

from stmixer_mm.datasets.frames import (
    describe_folder,
    find_source,
    split_filename_tmpl,
)
from stmixer_mm.datasets.packing import read_proposals, unpack_bboxes, unpack_persons
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
    ``img_key`` and ``ann``, the persons as ``pack_persons`` packs them.

    Args:
        ann_file: Annotation.
        pipeline: Transforms.
        num_classes: Classes with the dummy class 0.
        data_root: Folder that all relative paths are in.
        data_prefix: ``dict(img=folder)`` with the videos, named by their id with or
            without a suffix, or the frame folders, named by the id.
        use_frames: Read extracted frames instead of video files.
        filename_tmpl: Names of the extracted frames.
        start_index: Number of the first extracted frame.
        proposal_file: Boxes of persons for two-stage detectors, a pickle file (none of
            its code is run): ``{img_key: (n, 4 or 5)}`` xyxy in [0, 1] and score. A
            sample then has ``proposals`` (m, 4), m = 0 where the file lacks its key.
        person_det_score_thr: Keep proposals from this score on, and always the best.
        num_max_proposals: Keep this many at most, in the order of the file.
        test_mode: Validation or test.
        modality: What the host's transforms decode.
        metainfo, indices, serialize_data, lazy_init, max_refetch: As in mmengine's
            ``BaseDataset``. ``lazy_init=True`` reads and checks files at first use.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[dict | Callable],
        *,
        num_classes: int | None = None,
        data_root: str | None = '',
        data_prefix: Mapping[str, str] | None = None,
        use_frames: bool = False,
        filename_tmpl: str = 'img_{:05}.jpg',
        start_index: int = 1,
        proposal_file: str | None = None,
        person_det_score_thr: float = 0.9,
        num_max_proposals: int = 1000,
        test_mode: bool = False,
        modality: str = 'RGB',
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        split_filename_tmpl(filename_tmpl)
        data_prefix = dict(img='') if data_prefix is None else data_prefix
        if not isinstance(data_prefix, Mapping) or 'img' not in data_prefix:
            raise UserError(
                f'data_prefix={data_prefix!r} does not say where the videos or frames '
                "are; write data_prefix=dict(img='FOLDER')."
            )
        self.use_frames = use_frames
        self.filename_tmpl = filename_tmpl
        self.proposal_file = join_root(data_root, proposal_file)
        self.person_det_score_thr = person_det_score_thr
        self.num_max_proposals = num_max_proposals
        super().__init__(
            ann_file,
            pipeline,
            data_prefix=dict(data_prefix),
            test_mode=test_mode,
            num_classes=num_classes,
            start_index=start_index if use_frames else 0,
            modality=modality,
            data_root=data_root,
            metainfo=metainfo,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
            max_refetch=max_refetch,
        )

    def find_transform(self, of_type: type[BaseTransform]) -> BaseTransform | None:
        """The first of this type in the pipeline."""
        transforms = self.pipeline.transforms
        return next((one for one in transforms if isinstance(one, of_type)), None)

    @property
    def path_key(self) -> str:
        """The key of a sample's path to its video or its frames."""
        return 'frame_dir' if self.use_frames else 'filename'

    def find_sources(self, video_ids: Iterable[str]) -> dict[str, str]:
        """Path of each video or frame folder; ``UserError`` if any is missing."""
        folder = self.data_prefix['img']
        paths = {
            name: find_source(folder, name, use_frames=self.use_frames)
            for name in video_ids
        }
        missing = [name for name, path in paths.items() if path is None]
        if missing:
            what = 'frame folders' if self.use_frames else 'videos'
            named = ', '.join(missing[:5]) + (', ...' if len(missing) > 5 else '')
            raise UserError(
                f'{len(missing)} of the {len(paths)} {what} of {self.ann_file} are '
                f'missing in {describe_folder(folder)} ({named}); put them there, '
                'correct data_prefix or use_frames, or list them all with '
                'tools/check_dataset.py.'
            )
        return paths

    def add_proposals(self, infos: Sequence[dict]) -> None:
        """Set ``proposals`` of keyframes, packed, if there is a file of them."""
        if self.proposal_file is None:
            return
        keys = [info['img_key'] for info in infos]
        proposals = read_proposals(self.proposal_file, keys)
        for info, key in zip(infos, keys, strict=True):
            found = proposals.get(key, np.zeros((0, 4)))
            if found.shape[1] == 5 and len(found):
                scores = found[:, 4]
                found = found[scores >= min(self.person_det_score_thr, scores.max())]
            found = found[: self.num_max_proposals, :4]
            info['proposals'] = found.astype(np.float32).tobytes()

    def get_data_info(self, idx: int) -> dict:
        """The sample that the pipeline gets."""
        info = super().get_data_info(idx)
        info['filename_tmpl'] = self.filename_tmpl
        bboxes, labels, entity_ids = unpack_persons(info.pop('ann'), self.num_classes)
        info['gt_bboxes'] = bboxes
        info['gt_labels'] = labels.astype(np.float32)
        info['entity_ids'] = entity_ids
        if 'proposals' in info:
            info['proposals'] = unpack_bboxes(info['proposals'])
        return info

    def prepare_data(self, idx: int) -> dict | None:
        """What the pipeline makes of a sample; ``None``: take another one.

        The metainfo of its ``data_samples`` gets ``keyframe_entry``: which frame is the
        keyframe, or the last one seen before it.

        Raises:
            UserError: names the sample that the pipeline fails on.
        """
        info = self.get_data_info(idx)
        with blame(f'The pipeline fails on {info["img_key"]}'):
            packed = self.pipeline(info)
        sampler = self.find_transform(SampleKeyframeClip)
        if sampler is not None and packed is not None and 'data_samples' in packed:
            packed['data_samples'].set_metainfo(dict(keyframe_entry=sampler.place))
        return packed

    def get_cat_ids(self, idx: int) -> list[int]:
        """Columns of ``gt_labels`` that a keyframe has, for ClassBalancedDataset."""
        labels = PersonDataset.get_data_info(self, idx)['gt_labels']
        return labels.any(axis=0).nonzero()[0].tolist()
