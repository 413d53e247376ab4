"""Which frames a clip takes, and how videos and frame folders are opened."""

import functools
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import decord
import numpy as np

from stmixer_mm.errors import UserError
from stmixer_mm.files import check_file

VIDEO_SUFFIXES = (
    *('.mp4', '.mkv', '.webm', '.avi', '.mov', '.m4v'),
    *('.mpg', '.mpeg', '.wmv', '.flv', '.ts'),
)
MAX_STRETCH = 1.02  # between the shapes of a picture and its smaller copy, by rounding
MAX_OPEN = 16  # videos of a process; each takes 4 MB to 20 MB


def keyframe_index(
    timestamp: float, *, fps: float, total_frames: int, timestamp_start: float = 0
) -> int:
    """Index, from 0, of the frame that begins nearest to a timestamp in seconds.

    Of two alike it is the even one. ``timestamp_start`` is the timestamp of frame 0;
    the very end of the video counts as its last frame. Raises ``UserError`` for a
    timestamp outside the video.
    """
    seconds = timestamp - timestamp_start
    index = round(seconds * fps)
    if seconds < 0 or index > total_frames:
        duration = total_frames / fps
        raise UserError(
            f'timestamp {timestamp:g} s lies outside its {total_frames} frames at '
            f'{fps:g} fps, which last from {timestamp_start:g} s to '
            f'{timestamp_start + duration:.3f} s; correct the annotation or '
            'timestamp_start'
        )
    return min(index, total_frames - 1)


def clip_indices(
    keyframe: int,
    *,
    clip_len: int,
    frame_interval: int,
    total_frames: int,
    offsets: Sequence[int] | np.ndarray = (0,),
) -> np.ndarray:
    """Frame indices (clip_len,), counted from 0, of the clip around a keyframe.

    The keyframe is entry clip_len // 2. Each frame is moved by its offset, then
    clamped to the video: frames beyond an end repeat the end.
    """
    steps = np.arange(clip_len) - clip_len // 2
    indices = keyframe + steps * frame_interval + np.asarray(offsets)
    return np.clip(indices, 0, total_frames - 1)


def is_stretched(size: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two pictures have different shapes; sizes are both (h, w) or (w, h)."""
    stretch = size[0] / size[1] * other[1] / other[0]
    return max(stretch, 1 / stretch) > MAX_STRETCH


def find_video(folder: str, video_id: str) -> str | None:
    """The file of a video: its id as it is, or with a usual suffix; None if absent."""
    path = os.path.join(folder, video_id)
    candidates = (path, *(path + suffix for suffix in VIDEO_SUFFIXES))
    return next((file for file in candidates if os.path.isfile(file)), None)


def without_suffix(video_id: str) -> str:
    """The name of a video less a usual suffix; ``take.01`` has none."""
    stem, suffix = os.path.splitext(video_id)
    return stem if suffix.lower() in VIDEO_SUFFIXES else video_id


def find_source(folder: str, video_id: str, *, use_frames: bool) -> str | None:
    """Path of a video, or of the folder of its frames; None if absent."""
    if not use_frames:
        return find_video(folder, video_id)
    path = os.path.join(folder, video_id)
    return path if os.path.isdir(path) else None


def describe_folder(folder: str) -> str:
    """Its name, and why nothing is found there, if that is due to the folder itself."""
    name = folder or 'the current folder'
    if os.access(folder or '.', os.X_OK):
        return name
    why = 'may not be entered' if os.path.isdir(folder) else 'is not a folder'
    return f'{name}, which {why}'


class VideoReader(decord.VideoReader):
    """decord's reader, at rest between clips."""

    def get_batch(self, indices: Sequence[int]) -> decord.nd.NDArray:
        batch = super().get_batch(indices)
        # Else its thread goes on with the frames that follow: a core and 200 MB.
        self.seek(0)
        return batch


def open_video(path: str) -> VideoReader:
    """Open a video without reading it into memory.

    Raises:
        UserError: the file is missing, empty, truncated or not a video.
    """
    check_file(path, subject=path, remedy='check the path (of a dataset: data_prefix)')
    try:
        reader = VideoReader(str(path), num_threads=1)
        if len(reader) and 0 < reader.get_avg_fps() < float('inf'):
            return reader
        cause = None
    # decord raises RuntimeError or its own DECORDError, which is a plain Exception;
    # the text is not for users.
    except Exception as error:
        cause = error
    raise UserError(
        f'{path} ({os.path.getsize(path)} bytes) cannot be read as a video: it is '
        'truncated, damaged, of an unknown codec, or not a video; fetch it again or '
        're-encode it, for example as H.264.'
    ) from cause


class OpenVideos:
    """Videos that stay open from clip to clip: opening one reads its whole index.

    The :data:`MAX_OPEN` used last stay. A copy, a pickle or a forked process has none
    at first.
    """

    def __init__(self) -> None:
        # By process: to close a reader of its parent's would make a forked one hang.
        self._readers: dict[int, dict[tuple, VideoReader]] = {}

    def get(self, path: str) -> VideoReader:
        """The reader of a video, to be used by one at a time."""
        if not os.path.isfile(path):
            return open_video(path)  # which says what is there instead
        stat = os.stat(path)
        key = path, stat.st_mtime_ns, stat.st_size
        readers = self._readers.setdefault(os.getpid(), {})
        readers[key] = reader = readers.pop(key, None) or open_video(path)
        if len(readers) > MAX_OPEN:
            del readers[next(iter(readers))]
        return reader

    def __reduce__(self) -> tuple:
        return OpenVideos, ()


def count_decoded(frame_inds: Iterable[int], key_inds: Sequence[int]) -> int:
    """Frames that decord decodes to get some of them from a video at its start.

    It goes on from where it is, or starts at the key frame before, if that is nearer.
    """
    position = decoded = 0
    for index in sorted(set(map(int, frame_inds))):
        key = key_inds[bisect_right(key_inds, index) - 1]
        decoded += index + 1 - max(key, position)
        position = index + 1
    return decoded


@functools.lru_cache(maxsize=4096)
def count_frames(frame_dir: str, filename_tmpl: str, start_index: int) -> int:
    """Extracted frames in a folder, from start_index to the highest number.

    The folder is listed once per process.
    """
    return frame_numbers(frame_dir, filename_tmpl, start_index)[-1] - start_index + 1


def frame_numbers(frame_dir: str, filename_tmpl: str, start_index: int) -> list[int]:
    """Sorted numbers, from start_index on, of the extracted frames in a folder.

    Raises ``UserError`` when it is missing or holds no such frame.
    """
    head, tail = split_filename_tmpl(filename_tmpl)
    pattern = re.compile(re.escape(head) + r'(\d+)' + re.escape(tail))
    if not os.path.isdir(frame_dir):
        raise UserError(
            f'the frame folder {frame_dir} does not exist; extract the frames or '
            'correct data_prefix.'
        )
    matches = (pattern.fullmatch(name) for name in os.listdir(frame_dir))
    numbers = sorted(int(match[1]) for match in matches if match)
    numbers = [number for number in numbers if number >= start_index]
    if not numbers:
        raise UserError(
            f'the frame folder {frame_dir} holds no frame named like {filename_tmpl} '
            f'from number {start_index} on; correct filename_tmpl or start_index.'
        )
    return numbers


def split_filename_tmpl(filename_tmpl: str) -> tuple[str, str]:
    """What the names of frames have before and after their number.

    Raises ``UserError`` for a template without exactly one place for a number.
    """
    match = re.fullmatch(r'([^{}]*)\{(?::0?\d*d?)?\}([^{}]*)', filename_tmpl)
    if match is None:
        raise UserError(
            f'filename_tmpl={filename_tmpl!r} does not say where the number of a frame '
            "stands; write it once, as in 'img_{:05}.jpg'."
        )
    return match.groups()


class KeptFrames:
    """A video that keeps each frame that it has decoded in memory, but is not open."""

    def __init__(self, path: str) -> None:
        self._path = path
        reader = open_video(path)
        self._num_frames, self._fps = len(reader), reader.get_avg_fps()
        self._frames: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._num_frames

    def get_avg_fps(self) -> float:
        return self._fps

    def get_batch(self, indices: Sequence[int]) -> decord.nd.NDArray:
        indices = list(map(int, indices))
        missing = [index for index in indices if index not in self._frames]
        if missing:
            frames = open_video(self._path).get_batch(missing).asnumpy()
            # Copies, since each frame on its own would keep the whole clip alive.
            self._frames.update(zip(missing, map(np.copy, frames), strict=True))
        return decord.nd.array(np.stack([self._frames[index] for index in indices]))
