"""Transforms for clips with persons in their frames."""

import numpy as np
from mmaction.datasets.transforms import PackActionInputs
from mmcv.transforms import BaseTransform
from torch import from_numpy

from stmixer_mm.datasets.frames import nearest_frame
from stmixer_mm.datasets.persons import merge_equal
from stmixer_mm.datasets.transforms import clock_of, frames_of
from stmixer_mm.errors import UserError
from stmixer_mm.registry import TRANSFORMS
from stmixer_mm.structures import ABSENT, PRESENT, UNKNOWN


@TRANSFORMS.register_module()
class LocateTubelets(BaseTransform):
    """Look up where the persons of a video are in the K frames of a clip.

    Put it after :class:`SampleKeyframeClip`. Sets ``clip_frames`` (K,), numbers of the
    frames in the video from 1; and, for samples of clip datasets, the k persons that
    have a box in one of these frames:

    - ``gt_bboxes`` (k, K, 4), xyxy in [0, 1], zeros where a person has none,
    - ``gt_states`` (k, K) int64: 1 has a box, 0 is known not to be there, -1 unknown,
    - ``gt_labels`` (k, num_classes), multi-hot, of the box nearest to entry K // 2,
      or (k, K, num_classes) of each box, zeros where there is none,
    - ``entity_ids`` (k,).

    Persons whose boxes are equal in all frames become one, with the labels of all.

    Args:
        frame_actions: Labels of each box, for a decoder with ``frame_actions``.

    Raises:
        UserError: no frame of the clip is annotated.
    """

    def __init__(self, *, frame_actions: bool = False) -> None:
        self.frame_actions = frame_actions

    def transform(self, results: dict) -> dict:
        frames = results['frame_inds'] - results.get('start_index', 0)
        results['clip_frames'] = frames + 1
        tracks = results.pop('tracks', None)
        if tracks is None:
            return results
        if tracks.seconds is None:
            places = tracks.persons['time'].astype(int) - 1
            is_annotated = np.ones(len(frames), bool)
        else:
            annotated = _name_frames(tracks.seconds, results)
            places = annotated[np.searchsorted(tracks.seconds, tracks.persons['time'])]
            is_annotated = np.isin(frames, annotated)
        if not is_annotated.any():
            raise UserError(
                f'No frame of the clip around {results["img_key"]} is annotated; leave '
                'ahead_s out.'
            )
        ground_truth = _find_persons(tracks.persons, places, frames, is_annotated)
        if not self.frame_actions:
            labels = ground_truth['gt_labels']
            # A person's boxes by their distance from the middle of the clip.
            nearest = np.abs(frames - frames[len(frames) // 2]).argsort(kind='stable')
            is_present = ground_truth['gt_states'][:, nearest] == PRESENT
            ground_truth['gt_labels'] = labels[
                np.arange(len(labels)), nearest[is_present.argmax(axis=1)]
            ]
        results.update(ground_truth)
        return results


def _name_frames(seconds: np.ndarray, results: dict) -> np.ndarray:
    """The frames (m,), from 0, nearest to timestamps, as :func:`.keyframe_index`."""
    clock = clock_of(results, frames_of(results))
    numbers, times = np.arange(clock['total_frames']), clock['frame_times']
    if times is None:
        times = numbers / clock['fps']
    places = np.interp(seconds - clock['timestamp_start'], times, numbers)
    return np.array([*map(nearest_frame, places)], int)


def _find_persons(
    persons: np.ndarray,
    places: np.ndarray,
    frames: np.ndarray,
    is_annotated: np.ndarray,
) -> dict:
    """The persons that :class:`LocateTubelets` sets, with labels of each box.

    Args:
        persons: P boxes of a video.
        places: (P,) the frame that each is in, from 0.
        frames: (K,) of the clip.
        is_annotated: (K,) whether persons without a box in that frame are absent.
    """
    box, entry = np.nonzero(places[:, None] == frames)
    ids, person = np.unique(persons['id'][box], return_inverse=True)
    shape, columns = (len(ids), len(frames)), persons['labels'].shape[1]
    bboxes = np.zeros((*shape, 4), np.float32)
    states = np.where(is_annotated, ABSENT, UNKNOWN)[None].repeat(len(ids), axis=0)
    labels = np.zeros((*shape, columns), bool)
    bboxes[person, entry] = persons['bbox_norm'][box]
    states[person, entry] = PRESENT
    labels[person, entry] = persons['labels'][box]
    first, labels = merge_equal(
        np.hstack((states, bboxes.reshape(len(ids), 4 * len(frames)))),
        labels.reshape(len(ids), len(frames) * columns),
    )
    return dict(
        gt_bboxes=bboxes[first],
        gt_states=states[first],
        gt_labels=labels.reshape(len(first), len(frames), columns).astype(np.float32),
        entity_ids=ids[first],
    )


@TRANSFORMS.register_module()
class PackTubelets(PackActionInputs):
    """The host's ``PackActionInputs`` (see it for arguments), for clips of tubelets.

    ``gt_instances`` get ``states`` (k, K) too, and the metainfo ``clip_frames`` (K,).
    """

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        sample = packed['data_samples']
        if 'clip_frames' in results:
            sample.set_metainfo(dict(clip_frames=results['clip_frames']))
        if 'gt_states' in results:
            sample.gt_instances.states = from_numpy(results['gt_states'])
        return packed
