"""Random access gives the frames of decoding in order, whatever the file."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from numbered_videos import picture_of

from stmixer_mm.datasets.containers import open_container, rgb_picture
from stmixer_mm.datasets.decoding import CACHE_BYTES
from stmixer_mm.datasets.streams import open_source
from stmixer_mm.datasets.videos import DamagedVideo, Video, open_video
from stmixer_mm.projects.common import live_sources  # noqa: F401 - reads file:

FAULTS = Path(__file__).parents[1] / 'data' / 'faults'
GOPS = {'g': '8', 'bf': '3', 'sc_threshold': '0'}
OPEN_GOPS = {'x264-params': 'open-gop=1:keyint=8:bframes=3:log-level=none'}
HEVC = {'x265-params': 'keyint=8:bframes=3:log-level=none'}
REFRESH = {'x264-params': 'intra-refresh=1:keyint=8'}
ALTREF = {'g': '30', 'auto-alt-ref': '1', 'lag-in-frames': '16', 'arnr-maxframes': '7'}
PIX_FMT = dict(gif='rgb8', mjpeg='yuvj420p', prores='yuv422p10')
GREYS = np.arange(256, dtype=np.uint8)[:, None].repeat(4, axis=1)  # a palette


def encode(path, codec, options, *, num=36, first=0, rate=25, size=(96, 64), **form):
    """Write numbered pictures, and return the path."""
    pix_fmt = form.get('pix_fmt', PIX_FMT.get(codec, 'yuv420p'))
    with av.open(path, 'w') as target:
        stream = target.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.sample_aspect_ratio = form.get('aspect', Fraction(0, 1))
        for number in range(num):
            picture = picture_of((first + number) % 64, size)
            if pix_fmt == 'pal8':
                frame = av.VideoFrame.from_ndarray((picture[..., 0], GREYS), pix_fmt)
            else:
                frame = av.VideoFrame.from_ndarray(picture).reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


def copy(source, target, first=0, *, hidden=0, stamps=None):
    """Copy packets from one on; time 0 after some of them makes an edit list hide these."""
    with av.open(source) as reader, av.open(target, 'w') as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        packets = [packet for packet in reader.demux() if packet.size][first:]
        zero = sorted(packet.pts or 0 for packet in packets)[hidden]
        for number, packet in enumerate(packets):
            if hidden:
                packet.pts, packet.dts = packet.pts - zero, packet.dts - zero
            if stamps is not None:
                packet.pts = packet.dts = stamps(number)
            packet.stream = stream
            writer.mux(packet)
    return target


def in_order(path):
    """The pictures that decoding from the beginning to the end gives."""
    container, stream = open_container(f'file:{path}')
    stream.codec_context.thread_count = 1
    to_rgb, size, pictures = VideoReformatter(), {}, []
    with container:
        for packet in container.demux(stream):
            for frame in packet.decode():
                size = size or dict(width=frame.width, height=frame.height)
                if not frame.is_corrupt:
                    pictures.append(rgb_picture(to_rgb, frame, **size))
    return pictures


def check_law(path, *, may_seek=None, num=None):
    expected = in_order(path)
    reader = open_video(path)
    assert len(reader) == len(expected) == (num or len(expected)) > 1
    assert (np.diff(reader.times) > 0).all() and reader.times[0] == 0
    assert may_seek in (None, bool(reader._decoder._numbers))
    order = np.random.RandomState(0).permutation(len(expected))
    for reader.reads_on in False, True:
        for index in map(int, order):
            (picture,) = reader.get_batch([index])
            np.testing.assert_array_equal(picture, expected[index], err_msg=str(index))
    for index, picture in Video(str(path)).pictures(range(0, len(expected), 3)):
        np.testing.assert_array_equal(picture, expected[index])


@pytest.mark.parametrize(
    ('name', 'codec', 'options', 'may_seek'),
    [
        ('a.mp4', 'h264', GOPS, True),
        ('a.mp4', 'h264', OPEN_GOPS, True),
        ('a.mp4', 'h264', REFRESH, True),
        ('a.mp4', 'hevc', HEVC, True),
        ('a.mp4', 'mpeg4', {'g': '8'}, True),
        ('a.mp4', 'mpeg4', GOPS, True),
        ('a.mp4', 'libsvtav1', {'g': '8', 'svtav1-params': 'lp=1'}, True),
        ('a.mov', 'prores', {}, True),
        ('a.mkv', 'h264', GOPS, True),
        ('a.mkv', 'hevc', HEVC, True),
        ('a.mkv', 'mpeg2video', GOPS, False),
        ('a.mkv', 'ffv1', {}, True),
        ('a.webm', 'libvpx-vp9', {'g': '8', 'deadline': 'realtime'}, True),
        ('a.webm', 'libvpx', {'g': '8', 'deadline': 'realtime'}, True),
        ('a.webm', 'libvpx', ALTREF, None),
        ('a.ts', 'h264', GOPS, False),
        ('a.ts', 'hevc', HEVC, False),
        ('a.mpg', 'mpeg2video', GOPS, False),
        ('a.flv', 'h264', GOPS, False),
        ('a.avi', 'h264', GOPS, False),
        ('a.avi', 'h264', OPEN_GOPS, False),
        ('a.avi', 'mpeg4', GOPS, False),
        ('a.avi', 'mjpeg', {}, False),
        ('a.wmv', 'wmv2', {}, False),
        ('a.h264', 'h264', GOPS, False),
        ('a.hevc', 'hevc', HEVC, False),
        ('a.m4v', 'mpeg4', GOPS, None),
        ('a.gif', 'gif', {}, False),
    ],
)
def test_containers_and_codecs(tmp_path, name, codec, options, may_seek):
    path = encode(tmp_path / name, codec, options)
    check_law(path, may_seek=may_seek, num=36)


@pytest.mark.parametrize(
    ('pix_fmt', 'suffix'),  # Matroska has no palettes
    [('pal8', 'avi'), ('pal8', 'mov'), *(('gray', s) for s in ('avi', 'mov', 'mkv'))],
)
def test_palettes_and_grey(tmp_path, suffix, pix_fmt):
    path = tmp_path / f'a.{suffix}'
    check_law(encode(path, 'rawvideo', {}, num=12, pix_fmt=pix_fmt), num=12)


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.ts', 'a.avi'])
@pytest.mark.parametrize('aspect', [Fraction(4, 3), Fraction(8, 9), Fraction(1, 3)])
def test_pixels_are_square(tmp_path, name, aspect):
    plain = open_video(encode(tmp_path / name, 'mpeg4', {'g': '8'}, num=9))
    assert (plain.size, plain.pixel_aspect) == ((64, 96), 1)
    path = encode(tmp_path / f'wide_{name}', 'mpeg4', {'g': '8'}, num=9, aspect=aspect)
    video, stream = open_video(path), open_source(f'file:///{path}')
    width = round(96 * aspect)
    assert video.size == (64, width)
    assert video.pixel_aspect == pytest.approx(float(aspect))
    pictures, plain_pictures = (reader.get_batch(range(9)) for reader in (video, plain))
    triples = zip(pictures, stream, plain_pictures, strict=True)
    for picture, (_, streamed), expected in triples:
        np.testing.assert_array_equal(picture, streamed)
        scaled = cv2.resize(expected, (width, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(picture.astype(float) - scaled).mean() < 6
    assert (stream.size, stream.pixel_aspect) == (video.size, video.pixel_aspect)


@pytest.mark.parametrize('name', ['a.mp4', 'a.mov', 'a.mkv', 'a.ts'])
@pytest.mark.parametrize('first', [3, 8])
@pytest.mark.parametrize('options', [GOPS, OPEN_GOPS], ids=['closed', 'open'])
def test_cuts(tmp_path, name, first, options):
    if name == 'a.ts' and options is OPEN_GOPS:
        pytest.skip('its key frames lack the parameters that only MP4 has in its head')
    source = encode(tmp_path / 'whole.mp4', 'h264', options)
    check_law(copy(source, tmp_path / name, first))
    if name in ('a.mp4', 'a.mov') and first == 8:
        hidden = copy(source, tmp_path / name, first, hidden=5)
        check_law(hidden, may_seek=True, num=36 - 8 - 5)


def test_damaged_or_hidden_beginnings_of_others(tmp_path):
    source = encode(tmp_path / 'whole.mp4', 'mpeg4', GOPS)
    check_law(copy(source, tmp_path / 'a.mkv', 3))
    check_law(copy(source, tmp_path / 'a.mp4', hidden=11), may_seek=True, num=25)


@pytest.mark.parametrize(
    ('suffix', 'codec', 'options'),
    [
        ('ts', 'h264', GOPS),
        ('ts', 'mpeg2video', GOPS),
        ('h264', 'h264', GOPS),
        ('hevc', 'hevc', HEVC),
    ],
)
@pytest.mark.parametrize('size', [(96, 64), (64, 48)])
def test_joined_streams(tmp_path, suffix, codec, options, size):
    path = tmp_path / f'a.{suffix}'
    first = encode(path, codec, options, num=20).read_bytes()
    second = encode(path, codec, options, first=20, size=size).read_bytes()
    path.write_bytes(first + second)
    check_law(path, may_seek=False, num=None if suffix == 'ts' else 56)


def test_sizes_that_change_where_seeking_is_possible(tmp_path):
    path, options = tmp_path / 'a.webm', {'g': '8', 'deadline': 'realtime'}
    sources = [
        encode(tmp_path / f'{size[0]}.webm', 'libvpx-vp9', options, num=20, size=size)
        for size in ((96, 64), (64, 48), (96, 64))
    ]
    with av.open(sources[0]) as first, av.open(path, 'w') as target:
        stream = target.add_stream_from_template(first.streams.video[0])
        for part, source in enumerate(sources):
            with av.open(source) as reader:
                for packet in reader.demux():
                    if packet.size:
                        packet.pts += part * 800
                        packet.dts, packet.stream = packet.pts, stream
                        target.mux(packet)
    check_law(path, num=60)


@pytest.mark.parametrize('codec', ['mpeg4', 'mjpeg', 'h264'])
def test_equal_time_stamps(tmp_path, codec):
    source = encode(tmp_path / 'a.mp4', codec, {'g': '8', 'bf': '0'}, rate=2500)
    check_law(copy(source, tmp_path / 'a.mkv'), may_seek=False, num=36)


def test_time_stamps_of_decoding(tmp_path):
    """AVI has no others, and a copy of it may take them for those of the frames."""
    source = encode(tmp_path / 'a.avi', 'h264', GOPS)
    path = copy(source, tmp_path / 'a.mkv', stamps=lambda number: number)
    check_law(path, may_seek=False)


@pytest.mark.parametrize(
    ('name', 'num'), [('packed.avi', 48), ('trimmed.mp4', 135), ('pal8.avi', 20)]
)
def test_files_of_users(name, num):
    check_law(FAULTS / name, num=num)


@pytest.mark.parametrize(
    ('name', 'codec', 'options'),
    [
        ('a.avi', 'mjpeg', {}),
        ('a.avi', 'mpeg4', {'g': '12'}),
        ('a.ts', 'h264', {'g': '30'}),
    ],
)
def test_damage_is_told(tmp_path, name, codec, options):
    """A clip around the damage is refused, one elsewhere is not."""
    path = encode(tmp_path / name, codec, options, size=(320, 240))
    with av.open(path) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux()]
    data, (start, num_bytes) = bytearray(path.read_bytes()), packets[10]
    if name == 'a.ts':
        del data[start + 4 * 188 : start + 9 * 188]  # of some frames
    else:
        data[start : start + num_bytes] = bytes([255]) * num_bytes
    path.write_bytes(data)
    reader = open_video(path, lambda damage: None)
    with pytest.raises(DamagedVideo, match=rf'{name}\b.*cannot be (decoded|read)'):
        reader.get_batch(range(6, 20))
    assert len(reader.get_batch([3, 4])) == len(reader.get_batch([30, 31])) == 2


def test_memory_is_bounded(tmp_path):
    path = encode(tmp_path / 'a.ts', 'mpeg4', {'g': '40'}, num=90, size=(640, 480))
    reader = open_video(path)
    for first in 60, 0, 30:
        reader.get_batch(range(first, first + 30, 3))
        num_bytes = len(reader._decoder._recent) * 640 * 480 * 1.5
        assert num_bytes < 1.1 * CACHE_BYTES
