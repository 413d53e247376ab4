"""Opening what ffmpeg reads.

A file reads nothing but itself, and what comes from the network only the network:
ffmpeg knows playlists, and finds them by their content.
"""

import io
import math

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from stmixer_mm.pictures import MAX_PIXELS

FPS = 30.0  # of frames that come without times, as in KeyframeDataset
# ffmpeg's formats that open no other file: not SVG, for one.
_PICTURES = (
    *('bmp', 'cri', 'dds', 'dpx', 'exr', 'gem', 'gif', 'hdr', 'j2k', 'jpeg', 'jpegls'),
    *('jpegxl', 'jpegxs', 'pam', 'pbm', 'pcx', 'pfm', 'pgm', 'pgmyuv', 'pgx', 'phm'),
    *('photocd', 'pictor', 'png', 'ppm', 'psd', 'qdraw', 'qoi', 'sgi', 'sunrast'),
    *('tiff', 'vbn', 'webp', 'xbm', 'xpm', 'xwd'),
)
_FORMATS = (
    *('mov', 'matroska', 'avi', 'mpegts', 'mpeg', 'mpegvideo', 'asf', 'asf_o', 'flv'),
    *('live_flv', 'kux', 'ogg', 'mxf', 'mxf_d10', 'gxf', 'lxf', 'nut', 'ivf', 'rm'),
    *('wtv', 'dv', 'nsv', 'nuv', 'amv', 'swf', 'flic', 'roq', 'smk', 'bink', 'pva'),
    *('vmd', 'film_cpk', '4xm', 'ea', 'cine', 'moflex', 'thp', 'smjpeg', 'ty', 'usm'),
    *('h261', 'h263', 'h264', 'hevc', 'vvc', 'av1', 'obu', 'evc', 'apv', 'm4v', 'vc1'),
    *('vc1test', 'dirac', 'dnxhd', 'cavsvideo', 'avs2', 'avs3', 'mjpeg', 'mpjpeg'),
    *('mjpeg_2000', 'yuv4mpegpipe', 'gif', 'apng', 'webp', 'jpegxl_anim'),
    *(f'{picture}_pipe' for picture in _PICTURES),
)
_IN_PARTS = '.y', '.svg'  # pictures that may take more from other files
# Playlists of http(s) stay there: these two formats see to it.
_NETWORK_FORMATS = 'hls', 'dash', 'rtsp', 'rtp'
_NETWORK = (
    *('http', 'https', 'httpproxy', 'tcp', 'tls', 'udp', 'udplite', 'rtp', 'srtp'),
    *('rtmp', 'rtmpe', 'rtmps', 'rtmpt', 'rtmpte', 'rtmpts', 'ffrtmpcrypt'),
    *('ffrtmphttp', 'srt', 'rist', 'mmsh', 'mmst', 'ftp', 'sftp', 'crypto', 'data'),
)


def open_container(
    target: str | io.RawIOBase,
    *,
    form: str | None = None,
    timeout: tuple[float, float] | None = None,
    **options: str,
) -> tuple[InputContainer, av.VideoStream]:
    """Open a container, and find its video.

    Args:
        target: ``file:PATH``, a URL, or a file that is open.
        form: Its format; by default found by its content.
        timeout: Seconds until opening and reading are given up.
        options: Of ffmpeg.

    Raises:
        av.FFmpegError: It cannot be opened, or would open another file.
        LookupError: It has no video, or its codec is unknown; or its name has a NUL.
    """
    if '\0' in str(target):  # ffmpeg reads a name to there
        raise LookupError('no name has a NUL')
    is_here = not isinstance(target, str) or target.lower().startswith('file:')
    formats = [form] if form else [*_FORMATS]
    if not is_here:
        formats += _NETWORK_FORMATS
    elif isinstance(target, str) and not target.lower().endswith(_IN_PARTS):
        formats.append('image2')  # by its name alone, for pictures that no pipe knows
    container = av.open(
        target,
        format=form,
        timeout=timeout,
        metadata_errors='ignore',
        options=dict(
            pattern_type='none',  # image2 reads no series of files
            protocol_whitelist='file' if is_here else ','.join(_NETWORK),
            format_whitelist=','.join(formats),
            max_pixels=str(MAX_PIXELS),
            **options,
        ),
    )
    stream = container.streams.best('video')
    if stream is None or stream.codec_context is None:
        container.close()
        raise LookupError('it has no video' if stream is None else 'unknown codec')
    stream.codec_context.options = dict(max_pixels=str(MAX_PIXELS))
    return container, stream


def pixel_aspect(stream: av.VideoStream) -> float:
    """Width of the pixels of a video by their height; 1 where it is not told."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.1 <= aspect <= 10 else 1.0  # others are damage


def rgb_picture(
    to_rgb: VideoReformatter,
    frame: av.VideoFrame,
    *,
    width: int | None = None,
    height: int | None = None,
    aspect: float = 1.0,
) -> np.ndarray:
    """A decoded frame as RGB uint8 (h, w, 3) of square pixels, turned as it is shown.

    Args:
        width, height: Of the frame before; by default its own.
        aspect: Of its pixels, from :func:`pixel_aspect`; the width is scaled by it.
    """
    width = max(1, round((width or frame.width) * aspect))
    rgb = to_rgb.reformat(frame, width, height, 'rgb24').to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))


class RisingClock:
    """Seconds since the first frame, which rise even where time stamps do not.

    Args:
        step: Seconds to a frame without a time stamp, or with one that begins anew.
    """

    def __init__(self, step: float) -> None:
        self._step, self._time_s, self._zero_s, self._stamp = (
            step,
            -step,
            None,
            -math.inf,
        )

    def read(self, stamp: float | None) -> float:
        """The time of the next frame, whose own time stamp is in seconds, if known."""
        following = self._time_s + self._step
        if stamp is None:
            self._time_s = following
            return following
        if self._zero_s is None or stamp < self._stamp:
            self._zero_s = stamp - following
        self._stamp = stamp
        # A microsecond after the one before, if their time stamps are equal.
        self._time_s = max(stamp - self._zero_s, self._time_s + 1e-6)
        return self._time_s
