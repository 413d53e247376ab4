import math
import os
import re
import socket
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import av
import cv2
import numpy as np
import pytest
from tiny_stmixer import write_video

from stmixer_mm.apis.cut import keyframe_times
from stmixer_mm.datasets import streams
from stmixer_mm.datasets.clips import EvenFrames, EvenTimes, RecentFrames, cut_clips
from stmixer_mm.datasets.frames import keyframe_index
from stmixer_mm.datasets.streams import (
    FrameStream,
    list_sources,
    name_source,
    open_source,
)
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError


def numbered(count, fps=10.0, size=(4, 6), start=0.0):
    """Frames of which each shows its number, with their times."""
    return [
        (start + index / fps, np.full((*size, 3), index, np.uint8))
        for index in range(count)
    ]


def cut(frames, keyframes, before=3, after=2, **options):
    ring = RecentFrames(before, after)
    return list(cut_clips(FrameStream(frames), keyframes, ring, **options))


@pytest.mark.parametrize('fps', [10, 12.5, 30])
@pytest.mark.parametrize('start', [0.0, 0.61])
@pytest.mark.parametrize('end', [None, 1.9])
@pytest.mark.parametrize('interval_s', [0.1, 0.3, 1, 9])
def test_keyframes_of_a_stream_are_those_of_a_video(fps, start, end, interval_s):
    clock = dict(fps=fps, total_frames=27)
    part = dict(interval_s=interval_s, start=start, end=end)
    times = keyframe_times(27 / fps, frame_s=1 / fps, **part)
    clips = cut(numbered(27, fps), EvenTimes(max(interval_s, 1 / fps), start, end))
    np.testing.assert_allclose([clip.time_s for clip in clips], times)
    numbers = [keyframe_index(time_s, **clock) for time_s in times]
    assert [clip.frame_index for clip in clips] == numbers
    for clip in clips:
        inside = [n for n in range(27) if -3 <= n - clip.frame_index <= 2]
        assert [*clip.frames] == inside
        np.testing.assert_allclose(clip.times, np.array(inside) / fps)
        shown = clip.sample['video_reader'].get_batch(range(len(inside)))
        assert [picture[0, 0, 0] for picture in shown] == inside
        assert inside[clip.sample['frame_index']] == clip.frame_index


@pytest.mark.parametrize(
    ('count', 'step', 'end', 'middles'),
    [
        (20, 3, None, [3, 6, 9, 12, 15, 17]),
        (20, 30, None, [3, 17]),
        (20, 3, 1.0, [3, 6, 9]),
        (5, 3, None, [2]),
    ],
)
def test_clips_can_lie_inside_of_the_stream(count, step, end, middles):
    clips = cut(numbered(count), EvenFrames(step, end=end), inside=True)
    assert [clip.frame_index for clip in clips] == middles
    assert all(len(clip.frames) == min(6, count) for clip in clips)


def test_a_clip_is_cut_when_its_last_frame_is_here_and_no_more_are_kept():
    given, alive = [], []

    def frames():
        for time_s, picture in numbered(60):
            given.append(time_s)
            yield time_s, picture

    ring = RecentFrames(3, 2)
    for clip in cut_clips(FrameStream(frames()), EvenTimes(1.0), ring):
        assert len(given) == clip.frame_index + 3
        alive.append(len(ring._ring))
    assert max(alive) == 7


def test_a_pause_has_no_keyframes():
    frames = [*numbered(10), *numbered(10, start=1e6)]
    clips = cut(frames, EvenTimes(0.5))
    assert [clip.frame_index for clip in clips] == [0, 5, 10, 15]
    assert all(abs(c.time_s - frames[c.frame_index][0]) <= 0.5 for c in clips)


def test_no_frame_is_a_keyframe_twice():
    clips = cut(numbered(10), EvenTimes(1e-9))
    assert [clip.frame_index for clip in clips] == list(range(10))


GOOD = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    'frames',
    [
        [GOOD, GOOD[:2]],
        [GOOD.astype(float)],
        [GOOD[:0]],
        ['x'],
        [(0, GOOD), (0, GOOD)],
        [(math.nan, GOOD)],
        [('soon', GOOD)],
    ],
)
def test_what_is_no_frame_is_refused(frames):
    with pytest.raises(UserError, match=f'frame {len(frames) - 1}'):
        list(FrameStream(frames))


def test_branches_read_the_same_frames_once():
    read = []
    frames = FrameStream(read.append(n) or GOOD + n for n in range(5))
    branch = frames.branch()
    assert [int(one.max()) for _, one in frames] == list(range(5))
    assert [int(one.max()) for _, one in branch] == list(range(5))
    assert read == list(range(5))
    assert len(frames) == len(branch) == 5


@pytest.fixture
def folder(tmp_path):
    write_video(tmp_path / 'b.MP4')
    write_video(tmp_path / 'a.mp4')
    (tmp_path / 'notes.md').write_text('x')
    (tmp_path / 'pictures').mkdir()
    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / 'pictures' / f'{number}.png'), GOOD + number)
    (tmp_path / 'list.txt').write_text('a.mp4\r\n\n gone.mp4 \nrtsp://host/live\n')
    (tmp_path / 'nothing').mkdir()
    (tmp_path / 'nothing.txt').write_text('\n')
    return tmp_path


def test_sources_are_listed(folder):
    pictures = str(folder / 'pictures')
    videos = [str(folder / 'a.mp4'), str(folder / 'b.MP4')]
    assert list_sources(folder) == videos
    assert list_sources(pictures) == [pictures]
    assert list_sources(str(folder / '*.mp4')) == videos[:1]
    listed = [videos[0], 'gone.mp4', 'rtsp://host/live']
    assert list_sources(str(folder / 'list.txt')) == listed
    assert list_sources([str(folder / '[ab].mp4'), 0]) == [videos[0], 0]
    for one in ('0', 0, '-', 'http://host/a.txt', GOOD[None], videos[1]):
        assert list_sources(one)[0] is one
    assert list_sources([GOOD, GOOD]) == [[GOOD, GOOD]]
    with pytest.raises(UserError, match='names 2 sources'):
        open_source(folder)


@pytest.mark.parametrize('name', ['nothing', 'nothing.txt', 'gone.txt', '*.mkv'])
def test_what_lists_nothing_is_named(folder, name):
    with pytest.raises(UserError, match=re.escape(str(folder / name))):
        list_sources(folder / name)


def test_pictures_come_in_the_order_of_their_numbers(folder):
    stream = open_source(folder / 'pictures', fps=2)
    assert [(time_s, one[0, 0, 0]) for time_s, one in stream] == [
        (0, 1), (0.5, 2), (1, 10)
    ]  # fmt: skip
    (folder / 'pictures' / '3.png').write_bytes(b'x')
    with pytest.raises(UserError, match=r'3\.png cannot be read as a picture'):
        list(open_source(folder / 'pictures'))


@pytest.fixture
def serve(tmp_path):
    """The URL of a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f'http://127.0.0.1:{server.server_address[1]}'
        server.shutdown()


def test_frames_of_a_url_are_those_of_the_file(serve, tmp_path):
    video = open_video(write_video(tmp_path / 'a.mp4'))
    stream = open_source(f'{serve}/a.mp4')
    for index, (time_s, picture) in enumerate(stream):
        assert time_s == pytest.approx(video.times[index])
        np.testing.assert_array_equal(picture, video.get_batch([index])[0])
    assert len(stream) == len(video)
    assert stream.fps == pytest.approx(video.fps)
    assert stream.size == video.size


@pytest.mark.parametrize('source', ['{url}/gone.mp4', '97', '/dev/video98', 'no://x'])
def test_a_source_that_is_not_there_is_named(serve, source):
    source = source.format(url=serve)
    with pytest.raises(UserError, match=f'{source} cannot be opened .*; see whether'):
        list(open_source(source))
    assert name_source('rtsp://me:secret@host/x') == 'rtsp://host/x'


def test_a_source_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(streams, 'OPEN_S', 0.2)
    with socket.create_server(('127.0.0.1', 0)) as silent:
        url = 'http://{}:{}'.format(*silent.getsockname())
        with pytest.raises(UserError, match=r'opened \(nothing came for 0\.2 s\)'):
            list(open_source(url))


def test_a_stream_that_changes_its_size_is_named(tmp_path):
    parts = []
    for name, size in (('a.ts', (64, 48)), ('b.ts', (48, 32))):
        with av.open(tmp_path / name, 'w') as target:
            stream = target.add_stream('h264', rate=10)
            stream.width, stream.height, stream.pix_fmt = *size, 'yuv420p'
            for _ in range(10):
                picture = np.zeros((*size[::-1], 3), np.uint8)
                target.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            target.mux(stream.encode(None))
        parts.append((tmp_path / name).read_bytes())
    (tmp_path / 'c.ts').write_bytes(b''.join(parts))
    frames = []
    with pytest.raises(UserError, match='give frames of one size'):
        frames.extend(open_source(f'file:///{tmp_path}/c.ts'))
    # The clock of the second part is that of the first anew.
    both = FrameStream([*parts_of(tmp_path, 'a.ts', 'a.ts')])
    times = [time_s for time_s, _ in both]
    np.testing.assert_allclose(np.diff(times), 0.1, atol=1e-3)
    assert len(times) == 20


def parts_of(folder, *names):
    whole = b''.join((folder / name).read_bytes() for name in names)
    (folder / 'd.ts').write_bytes(whole)
    return open_source(f'file:///{folder}/d.ts')


@pytest.fixture
def pipe_in(monkeypatch):
    """Standard input of some bytes."""

    def pipe(data):
        reader, writer = os.pipe()
        monkeypatch.setattr(sys, 'stdin', os.fdopen(reader))
        Thread(target=lambda: (os.write(writer, data), os.close(writer))).start()

    return pipe


def test_frames_come_from_standard_input(pipe_in):
    head = b'YUV4MPEG2 W6 H4 F5:1 Ip A1:1 C444\n'
    frames = b''.join(b'FRAME\n' + bytes([16 + n] * 72) for n in range(5))
    pipe_in(head + frames)
    found = list(open_source('-'))
    assert [one.shape for _, one in found] == [(4, 6, 3)] * 5
    np.testing.assert_allclose([time_s for time_s, _ in found], np.arange(5) / 5)
