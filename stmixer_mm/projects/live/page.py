"""A web page that shows the detections in a stream.

Pictures are sent as motion JPEG, which browsers show without a script, everything else
as server-sent events. A slow viewer misses pictures and events: only the newest wait.
"""

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import cv2
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from uvicorn.protocols.http.h11_impl import H11Protocol

from stmixer_mm.errors import blame
from stmixer_mm.projects.live.detection import LiveDetection, above
from stmixer_mm.projects.live.pictures import LEAST_SCORE, LivePictures
from stmixer_mm.visualization.draw import PALETTE

MAX_CONNECTIONS = 32
REQUEST_S = 5  # until a connection without a request is closed
_EVENT_S, _PICTURE_S = 0.25, 0.02  # from one look for something new to the next
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)
_HEADERS = {
    'Content-Security-Policy': "default-src 'self'; frame-ancestors 'none'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',  # the address contains the token
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
}


class _Connection(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.loop.call_later(REQUEST_S, lambda: self.cycle or transport.close())


class LivePage:
    """Context manager of the server of the page, which has a thread of its own.

    Args:
        pictures: Pictures whose threshold the page can set, and which have a watcher for
            each viewer.
        live: The detection whose figures are shown; the pictures listen to it.
        host, port: Address to listen on. Beyond this machine, the URL has a token.

    Attributes:
        url: Address of the page.

    Raises:
        UserError: it cannot listen there.
    """

    def __init__(
        self,
        pictures: LivePictures,
        live: LiveDetection,
        host: str = '127.0.0.1',
        port: int = 0,
    ) -> None:
        self._pictures, self._live = pictures, live
        live.listeners.append(pictures)
        self._jpeg: bytes | None = None
        with blame(f'The page cannot listen on {host}:{port}', 'choose another --page'):
            self._socket = socket.create_server((host, port))
        # Pictures that wait in the socket are old when they arrive.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**17)
        address, port = self._socket.getsockname()
        is_local = address.startswith('127.')
        root = '' if is_local else f'/{secrets.token_urlsafe(16)}'
        shown = socket.gethostname() if address == '0.0.0.0' else address
        self.url = f'http://{shown}:{port}{root}/'
        files = StaticFiles(directory=Path(__file__).with_name('static'), html=True)
        routes = [
            Route('/picture', self._send_pictures),
            Route('/events', self._send_events),
            Route('/threshold', self._set_threshold, methods=['POST']),
            Mount('/', files),
        ]
        # Another site could resolve its own name to this machine.
        hosts = ['localhost', '127.0.0.1', address] if is_local else ['*']
        app = Starlette(
            routes=[Mount(root, routes=routes)],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        )
        config = uvicorn.Config(
            app,
            headers=[*_HEADERS.items()],
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=0,
            lifespan='off',
            loop='asyncio',
            http=_Connection,
            ws='none',
            log_config=None,
            log_level='critical',
        )
        self._server = uvicorn.Server(config)
        self._threads = [
            threading.Thread(target=target, args=args, name='page', daemon=True)
            for target, args in (
                (self._server.run, [[self._socket]]),
                (self._encode, []),
            )
        ]

    def __enter__(self) -> 'LivePage':
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.should_exit = True
        self._pictures.finish()
        for thread in self._threads:
            thread.join()

    def _encode(self) -> None:
        for picture in self._pictures:
            jpeg = cv2.imencode('.jpg', picture[..., ::-1], _JPEG)[1]
            self._jpeg = jpeg.tobytes()

    async def _send_pictures(self, request: Request) -> Response:
        kind = 'multipart/x-mixed-replace; boundary=part'
        return StreamingResponse(self._parts(), media_type=kind)

    async def _parts(self) -> AsyncIterator[bytes]:
        yield b'--part\r\n'
        previous_jpeg = None
        with self._pictures.watched():
            while True:
                if (jpeg := self._jpeg) is not previous_jpeg:
                    head = f'Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}'
                    yield b'%b\r\n\r\n%b\r\n--part\r\n' % (head.encode(), jpeg)
                previous_jpeg = jpeg
                await asyncio.sleep(_PICTURE_S)

    async def _send_events(self, request: Request) -> Response:
        return StreamingResponse(self._events(), media_type='text/event-stream')

    async def _events(self) -> AsyncIterator[str]:
        while True:
            yield f'data: {json.dumps(self._state())}\n\n'
            await asyncio.sleep(_EVENT_S)

    async def _set_threshold(self, request: Request) -> Response:
        names = 'origin', 'host', 'sec-fetch-site'
        origin, host, site = map(request.headers.get, names)
        is_own = site in (None, 'same-origin', 'none')
        if not is_own or origin not in (None, f'http://{host}'):
            return PlainTextResponse('Only the page itself may set this.', 403)
        with suppress(KeyError, ValueError):
            value = float(request.query_params['value'])
            if LEAST_SCORE <= value <= 1:
                self._pictures.score_thr = value
                return Response(status_code=204)
        return PlainTextResponse(f'Give a value from {LEAST_SCORE} to 1.', 400)

    def _state(self) -> dict:
        """Content of an event."""
        newest, is_connected, persons = self._live.newest, self._live.is_connected, []
        if newest is not None and is_connected:
            keyframe = above(newest.keyframe, self._pictures.score_thr)
            persons = [
                dict(
                    id=number,
                    color='#{:02x}{:02x}{:02x}'.format(*PALETTE[number % len(PALETTE)]),
                    actions=[dict(action=a, score=score) for a, score in actions],
                )
                for number, actions in zip(keyframe.ids, keyframe.actions, strict=True)
            ]
        return dict(
            source=self._live.name,
            is_connected=is_connected,
            threshold=self._pictures.score_thr,
            persons=persons,
            time_s=newest.keyframe.time_s if newest else 0.0,
            figures=self._live.figures() | {'frames dropped': self._pictures.dropped},
        )
