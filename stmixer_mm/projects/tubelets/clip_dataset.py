"""Clips with persons in their frames, from tubes or from tracks.

A sample is that of the keyframe in the middle of a clip, with the tracks of its video,
which ``LocateTubelets`` looks up in the frames that the clip takes.
"""

from collections.abc import Callable, Sequence

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import Fault, KeyframeRow
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.persons import Tracks, unpack_persons
from stmixer_mm.datasets.tube_dataset import TubeDataset
from stmixer_mm.registry import DATASETS


def find_middles(count: int, stride: int) -> np.ndarray:
    """Middles, from 0, of stretches of ``stride`` among ``count`` keyframes.

    The last stretch ends at the last keyframe and may overlap the one before. Clips as
    long as the stretches cover all keyframes.

    >>> find_middles(10, 4)
    array([2, 6, 8])
    """
    starts = np.arange(0, count, stride).clip(max=max(count - stride, 0))
    return np.minimum(starts + stride // 2, count - 1)


@DATASETS.register_module()
class TubeClipDataset(TubeDataset):
    """Clips of videos with published tubes, as :class:`TubeDataset` reads them.

    A person is a tube. It is known to be absent in frames where it has no box, so with
    ``all_frames`` clips without any person are samples too.

    Args:
        ann_file: As in :class:`TubeDataset`.
        pipeline: With ``LocateTubelets`` after ``SampleKeyframeClip``, and
            ``PackTubelets`` at its end.
        shared: Arguments of :class:`TubeDataset`. Middles of clips are keyframes,
            ``frame_stride`` keyframes apart.
    """

    def choose_keyframes(self, frames: np.ndarray) -> np.ndarray:
        return frames[find_middles(len(frames), self.frame_stride)]

    def keep_persons(self, video_id: str, persons: np.ndarray) -> None:
        self.tracks[video_id] = Tracks(persons, None)


@DATASETS.register_module()
class TrackClipDataset(KeyframeDataset):
    """Clips around keyframes of a csv in AVA's format with person ids.

    The csv has a few keyframes per second or more. A person is a person id of a video.
    At keyframes, also person-free ones, it has a box or is absent; in other
    frames, and at excluded keyframes, nothing is known. Its actions in a clip are those
    that ``LocateTubelets`` takes.

    Args:
        ann_file: As in :class:`KeyframeDataset`.
        pipeline: With ``LocateTubelets`` after ``SampleKeyframeClip``, and
            ``PackTubelets`` at its end.
        clip_stride: Keyframes from one clip to the next; their middles are keyframes.
        shared: Arguments of :class:`KeyframeDataset`.

    Raises:
        UserError: as :class:`KeyframeDataset`; also if a person id is negative, or has
            two boxes in a keyframe.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[dict | Callable],
        *,
        clip_stride: int = 1,
        **shared,
    ) -> None:
        self.clip_stride = clip_stride
        super().__init__(ann_file, pipeline, **shared)

    def read_rows(self) -> tuple[list[KeyframeRow], list[Fault]]:
        rows, faults = super().read_rows()
        first_rows: dict[tuple, KeyframeRow] = {}
        for row in rows:
            first = first_rows.setdefault((row.key, row.person_id), row)
            if row.person_id < 0 or first.bbox_norm != row.bbox_norm:
                message = (
                    f'the person id {row.person_id} is negative, or has another box at '
                    f'{row.key} in line {first.line}; give each person of a video its '
                    'own number from 0, or train on keyframes (KeyframeDataset).'
                )
                faults.append(Fault(self.ann_file, row.line, message))
        return rows, faults

    def person_key(self, row: KeyframeRow) -> int:
        return row.person_id

    def filter_data(self) -> list[dict]:
        """Middles of clips, among the keyframes that are not excluded."""
        videos: dict[str, list[dict]] = {}
        for info in super().filter_data():
            videos.setdefault(info['video_id'], []).append(info)
        keyframes = []
        for video_id, infos in videos.items():
            infos.sort(key=lambda info: info['timestamp'])
            persons = b''.join(info['ann'] for info in infos)
            self.tracks[video_id] = Tracks(
                unpack_persons(persons, self.num_classes),
                np.array([info['timestamp'] for info in infos], float),
            )
            middles = find_middles(len(infos), self.clip_stride)
            keyframes += [infos[index] for index in middles]
        return keyframes
