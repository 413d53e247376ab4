"""Frame indices of clips, and paths of videos and frame folders."""

import functools
import math
import os
import re

import numpy as np

from stmixer_mm.errors import UserError

VIDEO_SUFFIXES = (
    *('.mp4', '.mkv', '.webm', '.avi', '.mov', '.m4v'),
    *('.mpg', '.mpeg', '.wmv', '.flv', '.ts'),
)
ROUNDING_S = 1e-3  # of time stamps, in containers that count milliseconds
MAX_STRETCH = 1.02  # between the shapes of a picture and its smaller copy, by rounding


def keyframe_index(
    timestamp: float,
    *,
    fps: float,
    total_frames: int,
    timestamp_start: float = 0,
    frame_times: np.ndarray | None = None,
) -> int:
    """Index, from 0, of the frame that begins nearest to a timestamp in seconds.

    Of two equally near it is the later one. ``timestamp_start`` is frame 0's timestamp,
    ``frame_times`` (total_frames,) are the seconds from there to each frame's
    beginning; by default evenly spaced. The very end of the video counts as its last
    frame. Raises ``UserError`` for a timestamp outside the video.
    """
    seconds = timestamp - timestamp_start
    index = nearest_frame(place_of(seconds, fps, frame_times))
    if seconds < 0 or index > total_frames:
        duration = total_frames / fps
        raise UserError(
            f'timestamp {timestamp:g} s lies outside its {total_frames} frames at '
            f'{fps:g} fps, which last from {timestamp_start:g} s to '
            f'{timestamp_start + duration:.3f} s; correct the annotation or '
            'timestamp_start'
        )
    return min(index, total_frames - 1)


def place_of(
    seconds: float, fps: float, frame_times: np.ndarray | None = None
) -> float:
    """A time counted in frames, by their times (n,) if known; it may be after them."""
    if frame_times is None:
        return seconds * fps
    beyond = max(seconds - frame_times[-1], 0) * fps
    return np.interp(seconds, frame_times, np.arange(len(frame_times))) + beyond


def nearest_frame(place: float) -> int:
    """The frame nearest to a place counted in frames, of two equally near the later.

    Equal steps of places give equal steps of frames, which rounding to even does not.
    """
    return math.floor(round(float(place), 6) + 0.5)  # half-way despite rounding errors


def has_reached(times: float | np.ndarray, limit: float) -> bool | np.ndarray:
    """True for frames that begin at these seconds, at the limit of a part or after it.

    When a frame ends is not known when it comes from a stream.
    """
    return times + ROUNDING_S >= limit


def clip_indices(
    keyframe: int,
    *,
    clip_len: int,
    frame_interval: int,
    total_frames: int,
    place: int | None = None,
) -> np.ndarray:
    """Frame indices (clip_len,), counted from 0, of the clip around a keyframe.

    The keyframe is entry ``place``, by default clip_len // 2. Frames beyond an end of
    the video repeat it.
    """
    steps = np.arange(clip_len) - (clip_len // 2 if place is None else place)
    return np.clip(keyframe + steps * frame_interval, 0, total_frames - 1)


def is_stretched(size: tuple[float, float], other: tuple[float, float]) -> bool:
    """True for pictures of different shapes; sizes are both (h, w) or (w, h)."""
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


@functools.lru_cache(maxsize=4096)
def count_frames(frame_dir: str, filename_tmpl: str, start_index: int) -> int:
    """Extracted frames in a folder, from start_index to the highest number.

    The folder is listed once per process.
    """
    return frame_numbers(frame_dir, filename_tmpl, start_index)[-1] - start_index + 1


def frame_numbers(frame_dir: str, filename_tmpl: str, start_index: int) -> list[int]:
    """Sorted numbers, from start_index on, of the extracted frames in a folder.

    Raises ``UserError`` when it is missing or has no such frame.
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
            f'the frame folder {frame_dir} has no frame named like {filename_tmpl} '
            f'from number {start_index} on; correct filename_tmpl or start_index.'
        )
    return numbers


def split_filename_tmpl(filename_tmpl: str) -> tuple[str, str]:
    """The parts of the names of frames before and after their number.

    Raises ``UserError`` for a template without exactly one place for a number.
    """
    match = re.fullmatch(r'([^{}]*)\{(?::0?\d*d?)?\}([^{}]*)', filename_tmpl)
    if match is None:
        raise UserError(
            f'filename_tmpl={filename_tmpl!r} must have one place for the number of a '
            "frame; write it as in 'img_{:05}.jpg'."
        )
    return match.groups()
