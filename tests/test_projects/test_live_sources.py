import os
import socket
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from tiny_stmixer import write_video

from stmixer_mm.datasets.streams import open_source
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError
from stmixer_mm.projects.common import live_sources

EVEN = np.arange(10) / 10


def test_frames_of_a_url_are_those_of_the_file(tmp_path):
    video = open_video(write_video(tmp_path / 'a.mp4'))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        stream = open_source(f'http://127.0.0.1:{server.server_address[1]}/a.mp4')
        times, pictures = zip(*stream, strict=True)
        server.shutdown()
    np.testing.assert_allclose(times, video.times)
    np.testing.assert_array_equal(pictures, video.get_batch(range(len(video))))
    assert (stream.fps, stream.size) == (pytest.approx(video.fps), video.size)


def test_a_source_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(live_sources, 'OPEN_S', 0.2)
    with socket.create_server(('127.0.0.1', 0)) as silent:
        url = 'http://{}:{}'.format(*silent.getsockname())
        with pytest.raises(UserError, match=r'opened \(nothing came for 0\.2 s\)'):
            list(open_source(url))


def test_a_stream_whose_clock_or_size_changes(encode_video, tmp_path):
    first = encode_video('a.ts', EVEN).read_bytes()
    other = encode_video('b.ts', EVEN, size=(48, 32)).read_bytes()
    (tmp_path / 'c.ts').write_bytes(first + first)
    times = [time_s for time_s, _ in open_source(f'file:///{tmp_path}/c.ts')]
    np.testing.assert_allclose(np.diff(times), 0.1, atol=1e-3)
    assert len(times) == 20
    (tmp_path / 'd.ts').write_bytes(first + other)
    with pytest.raises(UserError, match='of the size'):
        list(open_source(f'file:///{tmp_path}/d.ts'))


def test_frames_come_from_standard_input(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, 'stdin', os.fdopen(reader))
    with os.fdopen(writer, 'wb') as pipe:
        pipe.write(b'YUV4MPEG2 W6 H4 F5:1 Ip A1:1 C444\n')
        for number in range(5):
            pipe.write(b'FRAME\n' + bytes([16 + number] * 72))
    frames = list(open_source('-'))
    assert [picture.shape for _, picture in frames] == [(4, 6, 3)] * 5
    np.testing.assert_allclose([time_s for time_s, _ in frames], np.arange(5) / 5)
