"""A web page that shows what is found in a stream.

Pictures are sent as motion JPEG, which browsers show by themselves, all else as
server-sent events. A stranger may connect: each request is limited in size, time and
number, and those that come from another site are refused.
"""

import ipaddress
import json
import math
import secrets
import select
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

from stmixer_mm.errors import UserError, blame, explain
from stmixer_mm.projects.live.detection import Figures, Listener, LiveResult
from stmixer_mm.projects.live.pictures import LivePictures, above
from stmixer_mm.structures import Keyframe, VideoDetections
from stmixer_mm.visualization.draw import PALETTE

LEAST_SCORE = 0.05  # that the threshold of the page can be set to
MAX_CONNECTIONS = 32
WINDOW_S, MAX_ROWS = 60.0, 100  # of the timeline
_REQUEST_S = 10.0  # for the head of a request, and for each piece sent
_SLOWEST = 50_000  # bytes per second of an upload
_EVENT_S = 0.2  # at least, from one event to the next
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)
_FILES = {
    '': ('page.html', 'text/html; charset=utf-8'),
    'page.css': ('page.css', 'text/css'),
    'page.js': ('page.js', 'text/javascript'),
}
_HEADERS = {
    'Content-Security-Policy': "default-src 'self'; frame-ancestors 'none'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',  # the address holds the token
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
}
_PARTS = 'multipart/x-mixed-replace; boundary=part'
_OWN_NAMES = ('localhost', '127.0.0.1', '::1')


class Timeline:
    """When each person did what, in the last ``WINDOW_S`` seconds."""

    def __init__(self) -> None:
        self._spans: dict[tuple[int, str], list[list[float]]] = {}
        self._open: set[tuple[int, str]] = set()  # the last span of these goes on

    def cut(self) -> None:
        """What is known ends at the last keyframe: the stream broke."""
        self._open.clear()

    def extend(self, found: Keyframe) -> None:
        """Add a keyframe: what was done at the one before went on until now."""
        now = found.time_s
        done = {
            (number, label)
            for number, actions in zip(found.ids, found.actions, strict=True)
            for label, _ in actions
        }
        going_on = self._open & self._spans.keys()
        for row in going_on:
            self._spans[row][-1][1] = now
        for row in done - going_on:
            self._spans.setdefault(row, []).append([now, now])
        self._open = done
        kept = {}
        for row, spans in self._spans.items():
            if recent := [span for span in spans if span[1] > now - WINDOW_S]:
                kept[row] = recent
        # Those that ended last, if there are too many.
        newest = sorted(kept, key=lambda row: kept[row][-1][1], reverse=True)
        self._spans = {row: kept[row] for row in newest[:MAX_ROWS]}

    def rows(self) -> list[dict]:
        return [
            dict(action=f'{number}: {label}', color=_color(number), spans=spans)
            for (number, label), spans in sorted(self._spans.items())
        ]


class _Newest:
    """The newest of some things, for which many can wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number, self._value = 0, None

    def put(self, value: object) -> None:
        with self._changed:
            self._number, self._value = self._number + 1, value
            self._changed.notify_all()

    def wait(self, number: int, timeout_s: float) -> tuple[int, object]:
        """A newer one than that of this number, or the same when there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, timeout_s)
            return self._number, self._value


class Upload(NamedTuple):
    """A video that somebody sent."""

    path: str
    name: str  # that its sender gave it
    is_awaited: Callable[[], bool]  # whether the sender is still there


class LivePage(Listener):
    """The server of the page, which tells it what happens.

    Args:
        pictures: Whose threshold the page can set, and which it asks for while somebody
            looks; what they yield is for :meth:`show`.
        figures: Gives those of the detection.
        name: Of the source.
        detect: Detects in an uploaded video.
        host, port: Where it listens. Beyond this machine the address has a token.
        max_upload: Bytes.
        say: Is told of faults of the page.

    Attributes:
        url: Where it is.

    Raises:
        UserError: it cannot listen there.
    """

    def __init__(
        self,
        pictures: LivePictures,
        figures: Callable[[], Figures],
        *,
        name: str,
        detect: Callable[[Upload], VideoDetections],
        host: str = '127.0.0.1',
        port: int = 0,
        max_upload: int = 200 * 2**20,
        say: Callable[[str], object] = print,
    ) -> None:
        self.pictures, self._figures, self._name = pictures, figures, name
        self.detect, self.max_upload, self.say = detect, max_upload, say
        self.uploading = threading.Lock()
        self.is_closed = False
        self.jpegs, self.results = _Newest(), _Newest()
        self._timeline, self._guard = Timeline(), threading.Lock()
        self.files = {
            path: (Path(__file__).with_name(file).read_bytes(), kind)
            for path, (file, kind) in _FILES.items()
        }
        with blame(f'The page cannot listen on {host}:{port}', 'choose another --page'):
            self._server = _Server(self, host, port)
        address, port = self._server.server_address[:2]
        self.is_local = ipaddress.ip_address(address).is_loopback
        self.root = '/' if self.is_local else f'/{secrets.token_urlsafe(16)}/'
        shown = socket.gethostname() if address in ('0.0.0.0', '::') else address
        shown = f'[{shown}]' if ':' in shown else shown
        self.url = f'http://{shown}:{port}{self.root}'
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[0.1], name='page', daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.is_closed = True
        for waited_for in self.jpegs, self.results:
            waited_for.put(None)
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()  # waits for the threads of all connections
        self._thread.join()

    def on_connection(self, index: int) -> None:
        with self._guard:
            self._timeline.cut()

    def on_result(self, result: LiveResult) -> None:
        found = above(result.found, self.pictures.score_thr)
        with self._guard:
            self._timeline.extend(found)
        self.results.put(found)

    def show(self, picture: np.ndarray) -> None:
        """Send a picture (h, w, 3) RGB to those who look."""
        if self.pictures.watchers:
            self.jpegs.put(cv2.imencode('.jpg', picture[..., ::-1], _JPEG)[1].tobytes())

    def state(self, found: Keyframe | None) -> dict:
        """What an event tells the page."""
        figures = self._figures()
        with self._guard:
            timeline = self._timeline.rows()
        persons = []
        if found is not None and figures.is_connected:
            persons = [
                dict(
                    color=_color(number),
                    actions=[dict(action=a, score=score) for a, score in actions],
                )
                for number, actions in zip(found.ids, found.actions, strict=True)
            ]
        return dict(
            source=self._name,
            is_connected=figures.is_connected,
            state='live' if figures.is_connected else 'no picture: waiting for it',
            threshold=self.pictures.score_thr,
            max_upload=self.max_upload,
            persons=persons,
            time_s=found.time_s if found else 0.0,
            window_s=WINDOW_S,
            timeline=timeline,
            figures=list_figures(figures, self.pictures.dropped),
        )


def list_figures(figures: Figures, dropped: int) -> list[tuple[str, str]]:
    """Figures as (name, value), for people."""
    median, high = figures.latency_s
    latency = 'none' if math.isnan(median) else f'{median:.2f} s, {high:.2f} s'
    return [
        ('frames', f'{figures.frames}'),
        ('dropped', f'{dropped}'),
        ('keyframes', f'{figures.keyframes}'),
        ('per second', f'{figures.keyframes_per_s:.1f}'),
        ('missed', f'{figures.missed}'),
        ('latency (median, 95 %)', latency),
        ('connections', f'{figures.connections}'),
    ]


def _color(number: int) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*PALETTE[number % len(PALETTE)])


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, page: LivePage, host: str, port: int) -> None:
        self.page = page
        self.address_family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self._deadlines: dict[socket.socket, float] = {}
        self._guard = threading.Lock()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without asking for the host's name

    def process_request(self, request: socket.socket, client_address: tuple) -> None:
        with self._guard:
            is_full = len(self._deadlines) >= MAX_CONNECTIONS
        if is_full:
            self.shutdown_request(request)
            return
        self.allow(request, _REQUEST_S)
        super().process_request(request, client_address)

    def allow(self, request: socket.socket, seconds: float) -> None:
        """A connection is cut when its time is over."""
        with self._guard:
            self._deadlines[request] = time.monotonic() + seconds

    def shutdown_request(self, request: socket.socket) -> None:
        with self._guard:
            self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        self.hang_up(time.monotonic())

    def hang_up(self, now: float = math.inf) -> None:
        with self._guard:
            late = [one for one, end in self._deadlines.items() if end <= now]
            for request in late:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: socket.socket, client_address: tuple) -> None:
        """Who hangs up is no fault of anybody's."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _REQUEST_S
    server_version, sys_version = 'stmixer_mm', ''

    def log_message(self, *args) -> None: ...

    def do_GET(self) -> None:
        path = self._path()
        if path in self.server.page.files:
            self._answer(200, *self.server.page.files[path])
        elif path in ('picture', 'events'):
            self._begin(200, dict(picture=_PARTS, events='text/event-stream')[path])
            with suppress(OSError):  # the client left
                (self._send_pictures if path == 'picture' else self._send_events)()
        elif path is not None:
            self._answer(404, b'There is no such page.')

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        origin = self.headers.get('Origin')
        if origin not in (None, f'http://{self.headers.get("Host")}'):
            self._answer(403, b'This is for requests from the page itself.')
        elif path not in ('threshold', 'detect'):
            self._answer(404, b'There is no such page.')
        else:
            (self._set_threshold if path == 'threshold' else self._detect)()

    def _path(self) -> str | None:
        """The path below the root, None after refusing the request."""
        page = self.server.page
        path = urlsplit(self.path).path
        # Under another name it is a page of another site that this machine's is.
        host = urlsplit(f'//{self.headers.get("Host", "")}').hostname
        if page.is_local and host not in _OWN_NAMES:
            self._answer(403, b'Use the address that was printed.')
        elif not secrets.compare_digest(
            path[: len(page.root)].encode(), page.root.encode()
        ):
            self._answer(403, b'The address lacks the token that was printed.')
        else:
            return path.removeprefix(page.root)
        return None

    def _begin(self, status: int, kind: str) -> None:
        self.send_response(status)
        for name, value in {'Content-Type': kind, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def _answer(
        self, status: int, content: bytes, kind: str = 'text/plain; charset=utf-8'
    ) -> None:
        with suppress(OSError):
            self._begin(status, kind)
            self.wfile.write(content)

    def _send_pictures(self) -> None:
        page, number = self.server.page, 0
        # What waits in it is old when it comes.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**17)
        self.wfile.write(b'--part\r\n')
        with page.pictures.watched():
            while not page.is_closed:
                self.server.allow(self.connection, _REQUEST_S)
                before = number
                number, jpeg = page.jpegs.wait(number, 1.0)
                if number > before and jpeg is not None:
                    head = f'Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}'
                    self.wfile.write(
                        b'%b\r\n\r\n%b\r\n--part\r\n' % (head.encode(), jpeg)
                    )

    def _send_events(self) -> None:
        page, number = self.server.page, 0
        while not page.is_closed:
            self.server.allow(self.connection, _REQUEST_S)
            number, found = page.results.wait(number, 1.0)
            event = json.dumps(page.state(found))
            self.wfile.write(f'data: {event}\n\n'.encode())
            time.sleep(_EVENT_S)

    def _length(self, most: int) -> int | None:
        """That of the body, None after refusing the request."""
        text = self.headers.get('Content-Length', '')
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            self._answer(411, b'The request does not say how long it is.')
        elif int(text) > most:
            self._answer(413, f'It is larger than {most} bytes.'.encode())
        else:
            return int(text)
        return None

    def _set_threshold(self) -> None:
        length = self._length(16)
        if length is None:
            return
        with suppress(ValueError):
            value = float(self.rfile.read(length))
            if LEAST_SCORE <= value <= 1:
                self.server.page.pictures.score_thr = value
                self._answer(204, b'')
                return
        self._answer(400, f'Give a number from {LEAST_SCORE} to 1.'.encode())

    def _detect(self) -> None:
        page = self.server.page
        length = self._length(page.max_upload)
        if length is None:
            return
        name = parse_qs(urlsplit(self.path).query).get('name', ['video'])[0]
        name = ''.join(filter(str.isprintable, name))[:200]
        if not page.uploading.acquire(blocking=False):
            self._answer(503, b'Another video is being detected; try again later.')
            return
        path = name
        try:
            with tempfile.TemporaryDirectory(prefix='stmixer_mm_') as folder:
                path = str(Path(folder, 'upload'))  # never a stranger's name
                self._receive(path, length)
                found = page.detect(Upload(path, name, self._is_awaited))
            self._answer(
                200, json.dumps(found.to_dict(), indent=2).encode(), 'application/json'
            )
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                sentence = 'The server failed; its terminal says how.'
                page.say(f'The page: {type(error).__name__}: {error}')
            self._answer(400, sentence.replace(path, name).encode())
        finally:
            page.uploading.release()

    def _receive(self, path: str, length: int) -> None:
        self.server.allow(self.connection, _REQUEST_S + length / _SLOWEST)
        with open(path, 'wb') as file:
            while length and (part := self.rfile.read(min(length, 2**16))):
                file.write(part)
                length -= len(part)
        if length:
            raise UserError('The video broke off; send it again.')
        self.server.allow(self.connection, math.inf)

    def _is_awaited(self) -> bool:
        if self.server.page.is_closed:
            return False
        if not select.select([self.connection], [], [], 0)[0]:
            return True
        with suppress(OSError):
            return self.connection.recv(1, socket.MSG_PEEK) != b''
        return False
