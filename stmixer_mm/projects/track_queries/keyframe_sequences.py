"""Sequences of keyframes of a video, for models that carry persons between them."""

import random
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from stmixer_mm.errors import UserError
from stmixer_mm.registry import DATASETS


class _Video(NamedTuple):
    """The m keyframes of a video in order of time."""

    samples: np.ndarray  # (m,) indices in the dataset
    next_ranges: np.ndarray  # (m, 2): half-open range of those that may be next
    lengths: np.ndarray  # (m,) keyframes of the longest sequence from here


@DATASETS.register_module()
class KeyframeSequences(Dataset):
    """Several keyframes of a video in order of time, from a dataset of keyframes.

    A sample is a list of ``inputs`` and one of ``data_samples``, whose metainfo have
    ``sequence_place``, from 0. The pipeline draws the same random numbers at all
    keyframes of a sequence.

    Args:
        dataset: Config of a dataset whose samples have ``video_id``, ``timestamp`` and
            ``entity_ids``, as :class:`KeyframeDataset` and :class:`TubeDataset`, and
            whose pipeline hands the ids on: it ends with
            ``PackActionInputs(algorithm_keys=('entity_ids',))``.
        num_keyframes: Keyframes of a sequence, 2 or more.
        step: Least and largest distance to the next keyframe, drawn anew for each, in
            the unit of timestamps: seconds, or frames of a :class:`TubeDataset`.
        stride: Take every n-th keyframe of a video as the first of a sequence.

    Raises:
        UserError: A person has no identity, or no video has that many keyframes that
            far apart.
    """

    def __init__(
        self,
        dataset: dict,
        *,
        num_keyframes: int = 3,
        step: tuple[float, float] = (0.0, float('inf')),
        stride: int = 1,
    ) -> None:
        least, largest = step
        self.dataset = DATASETS.build(dataset)
        self.dataset.full_init()
        self.num_keyframes = num_keyframes
        videos = defaultdict(list)
        for index in range(len(self.dataset)):
            info = self.dataset.get_data_info(index)
            _check_identities(info)
            # Joined datasets may have different videos of the same name.
            source = info.get('filename') or info.get('frame_dir')
            videos[info['video_id'], source].append((info['timestamp'], index))
        self._videos = [_link(samples, least, largest) for samples in videos.values()]
        self._starts = [
            (number, place)
            for number, video in enumerate(self._videos)
            for place in range(0, len(video.samples), stride)
            if video.lengths[place] >= num_keyframes
        ]
        if not self._starts:
            raise UserError(
                f'KeyframeSequences finds no video with {num_keyframes} keyframes that '
                f'are {least:g} to {largest:g} apart from one to the next; lower '
                'num_keyframes, or correct step.'
            )

    @property
    def metainfo(self) -> dict:
        return self.dataset.metainfo

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict:
        number, place = self._starts[index]
        video, places = self._videos[number], [place]
        for missing in range(self.num_keyframes - 1, 0, -1):
            following = np.arange(*video.next_ranges[places[-1]])
            long_enough = video.lengths[following] >= missing
            places.append(int(np.random.choice(following[long_enough])))
        states = random.getstate(), np.random.get_state()
        sequence = dict(inputs=[], data_samples=[])
        for order, place in enumerate(places):
            random.setstate(states[0])
            np.random.set_state(states[1])
            keyframe = self.dataset[int(video.samples[place])]
            keyframe['data_samples'].set_metainfo(dict(sequence_place=order))
            for name, values in sequence.items():
                values.append(keyframe[name])
        return sequence


def _check_identities(info: dict) -> None:
    ids = info['entity_ids'].tolist()
    if min(ids, default=0) < 0 or len({*ids}) < len(ids):
        raise UserError(
            f'The persons of keyframe {info["img_key"]} have the ids {ids}; give each '
            'person of a video its own number from 0.'
        )


def _link(keyframes: list[tuple[float, int]], least: float, largest: float) -> _Video:
    """Ranges of keyframes that may follow, from (timestamp, index) in any order."""
    times, samples = np.array(sorted(keyframes)).T
    # Timestamps are rounded; no keyframe follows itself.
    first = np.searchsorted(times, times + least - 1e-6)
    first = np.maximum(first, np.arange(len(times)) + 1)
    behind = np.searchsorted(times, times + largest + 1e-6, side='right')
    lengths = np.ones(len(times), int)
    for place in reversed(range(len(times))):
        lengths[place] += lengths[first[place] : behind[place]].max(initial=0)
    return _Video(samples.astype(int), np.column_stack([first, behind]), lengths)
