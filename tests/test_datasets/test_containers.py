"""Files by strangers end in a sentence or a result, and open no other file."""

import itertools
import os
import struct

import av
import numpy as np
import pytest
from tiny_stmixer import write_model

from stmixer_mm.apis import ActionDetInferencer

PLAYLISTS = {
    'm3u8': '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{}\n',
    'ffconcat': "ffconcat version 1.0\nfile '{}'\n",
    'mpd': '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp2t">'
    '<Representation id="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet>'
    '</Period></MPD>',
    'sdp': 'v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 33\na=control:{}\n',
    'svg': '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image '
    'href="{}" width="9" height="9"/></svg>',
    'xspf': '<playlist><trackList><track><location>{}</location></track></trackList>'
    '</playlist>',
}
CODECS = {
    'mp4': ('mpeg4', 'h264', 'mjpeg', 'png', 'libvpx-vp9'),
    'mov': ('png', 'rawvideo', 'mjpeg', 'prores_ks'),
    'mkv': ('ffv1', 'h264', 'mpeg2video', 'libvpx'),
    'avi': ('mpeg4', 'rawvideo', 'ffv1', 'png', 'huffyuv'),
    'ts': ('mpeg2video', 'h264'),
    'flv': ('flv', 'h264'),
    'gif': ('gif',),
    'y4m': ('wrapped_avframe',),
}
SIZES = (1, 1), (2, 2), (1, 60), (66, 2), (2, 500), (18, 34), (96, 50)


def write(path, codec, size):
    """A video of eight frames; ``None`` if the codec cannot have the size."""
    try:
        with av.open(path, 'w') as target:
            stream = target.add_stream(codec, rate=10)
            stream.width, stream.height = size
            stream.pix_fmt = stream.codec.video_formats[0].name
            for number in range(8):
                picture = np.full((size[1], size[0], 3), 20 * number, np.uint8)
                target.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            target.mux(stream.encode(None))
    except (av.FFmpegError, TypeError, ValueError):
        return None
    return path.read_bytes()


def lie(data, size, random):
    """The same file with another size, an unknown codec or damage."""
    for side, form in itertools.product(size, ('<I', '>I', '>H')):
        other = struct.pack(form, random.choice((0, 1, 7, 20000, 60000)))
        yield data.replace(struct.pack(form, side), other)
    for name in (
        b'mp4v',
        b'avc1',
        b'FMP4',
        b'V_MPEG4/ISO/ASP',
        b'png ',
        b'raw ',
        b'H264',
    ):
        yield data.replace(name, b'Zx9?'.ljust(len(name), b'?'))
    for place, byte in random.randint(0, 2**15, (3, 2)):
        yield (
            data[: place % len(data)]
            + bytes([byte % 256])
            + data[place % len(data) + 1 :]
        )
    yield data[: random.randint(len(data))]


def files(folder, canary):
    """Names and contents, about 200 of them."""
    random = np.random.RandomState(0)
    for (kind, text), place, suffix in itertools.product(
        PLAYLISTS.items(), (canary.name, canary, canary.as_uri()), ('', '.mp4', '.ts')
    ):
        yield f'list.{kind}{suffix}', text.format(place).encode()
    yield 'frame%02d.png', b'x'
    for suffix, codecs in CODECS.items():
        for codec, size in itertools.product(codecs, SIZES):
            data = write(folder / f'sound.{suffix}', codec, size)
            if data is None:
                continue
            yield f'sound.{suffix}', data
            if size == SIZES[-1]:
                lies = [one for one in lie(data, size, random) if one != data]
                yield from ((f'lie.{suffix}', one) for one in lies)


@pytest.fixture
def canary(tmp_path):
    """A video that nobody names, and whose time of access tells if it was read."""
    path = tmp_path / 'canary.ts'
    assert write(path, 'mpeg2video', (64, 48))
    os.utime(path, (0, path.stat().st_mtime))
    return path


def test_any_file_ends_in_a_sentence_or_a_result(tmp_path, canary):
    model = ActionDetInferencer(*write_model(tmp_path), 'cpu', show_progress=False)
    (tmp_path / 'frame01.png').write_bytes(b'x')
    outcomes = []
    for name, data in files(tmp_path, canary):
        path = tmp_path / name
        path.write_bytes(data)
        found = model.detect(path, vis_file=tmp_path / 'drawn.mp4')  # raises bugs
        assert found.error is None or found.error.count('\n') == 0
        assert name[:4] != 'list' or found.error
        outcomes.append(found.error is None)
    assert len(outcomes) > 180 and 0.2 < np.mean(outcomes) < 0.8
    assert canary.stat().st_atime == 0
    canary.read_bytes()
    if canary.stat().st_atime == 0:
        pytest.skip('the file system has no times of access')
