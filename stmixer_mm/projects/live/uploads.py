"""Detection in a video of a stranger, beside a stream that goes on."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import av
from torch import nn

from stmixer_mm.apis.inference import detect_video
from stmixer_mm.datasets.streams import Clip
from stmixer_mm.datasets.videos import (
    DamagedVideo,
    Video,
    join_stretches,
    open_video,
)
from stmixer_mm.errors import UserError
from stmixer_mm.projects.live.page import Upload
from stmixer_mm.structures import VideoDetections

LONGEST_S, MOST_PIXELS = 600.0, 4096 * 2304
# No playlists: they would have this machine open other files and addresses.
_FORMATS = 'mov,matroska,avi,mpegts,mpeg,ogg,flv,asf'


def take_turns(clips: Iterator[Clip], turn: threading.Lock) -> Iterator[Clip]:
    """Clips, during the detection in each of which nobody else has the model."""
    for clip in clips:
        with turn:
            yield clip


def detect_upload(
    model: nn.Module, upload: Upload, turn: threading.Lock, **options
) -> VideoDetections:
    """Detect in a video with a model that is busy with a stream, in half of the time.

    Args:
        model: From :func:`.init_detector`.
        upload: The video.
        turn: See :func:`take_turns`.
        options: Of :func:`.detect_video`.

    Raises:
        UserError: it is not a video, too long or too large; its sender has left.
    """
    video = _open(upload)
    found = VideoDetections(
        source=upload.name,
        classes=model.classes,
        fps=video.fps,
        height=video.size[0],
        width=video.size[1],
        total_frames=len(video),
    )

    def note_damage(damage: DamagedVideo) -> None:
        found.damage = join_stretches([*(found.damage or ()), damage.stretch])

    with turn:
        keyframes = detect_video(model, video, on_damage=note_damage, **options)
    while upload.is_awaited():
        begin = time.monotonic()
        with turn:
            one = next(keyframes, None)
        if one is None:
            return found
        found.keyframes.append(one)
        time.sleep(time.monotonic() - begin)
    raise UserError('Nobody waits for it any more.')


def _open(upload: Upload) -> Video:
    with suppress(av.FFmpegError):
        with av.open(
            f'file:{upload.path}',
            options=dict(format_whitelist=_FORMATS),
            metadata_errors='ignore',
        ) as container:
            stream = container.streams.best('video')
            pixels = stream.width * stream.height if stream else 0
        video = open_video(upload.path, on_damage=lambda damage: None)
        if not 0 < pixels <= MOST_PIXELS or video.times[-1] > LONGEST_S:
            raise UserError(
                f'The video has {stream.width}x{stream.height} pixels and lasts '
                f'{video.times[-1]:.0f} s; at most {MOST_PIXELS} pixels and '
                f'{LONGEST_S:g} s can be sent.'
            )
        return video
    raise UserError(
        'This is not a video of a usual format; send MP4, MKV, AVI or WebM.'
    )
