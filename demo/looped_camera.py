"""A camera that shows a video again and again, as MPEG-TS at http://127.0.0.1:PORT."""

import argparse
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np


def loop(video: str) -> Iterator[np.ndarray]:
    """The pictures of a video, without an end."""
    while True:
        with av.open(video) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format='rgb24')


def send(video: str, fps: int, file: object) -> None:
    pictures = loop(video)
    first = next(pictures)
    options = dict(tune='zerolatency', preset='ultrafast', g=str(fps))
    with av.open(file, 'w', format='mpegts') as target:
        stream = target.add_stream('h264', rate=fps, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = 'yuv420p'
        begin = time.monotonic()
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = index, Fraction(1, fps)
            target.mux(stream.encode(frame))
            time.sleep(max(begin + index / fps - time.monotonic(), 0))


def camera(video: str, port: int, fps: int = 15) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header('Content-Type', 'video/mp2t')
            self.end_headers()
            with suppress(OSError, av.FFmpegError):  # the viewer left
                send(video, fps, self.wfile)

        def log_message(self, *args) -> None: ...

    return ThreadingHTTPServer(('127.0.0.1', port), Handler)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('video')
    parser.add_argument('--port', type=int, default=8554)
    parser.add_argument('--fps', type=int, default=15)
    camera(**vars(parser.parse_args())).serve_forever()
