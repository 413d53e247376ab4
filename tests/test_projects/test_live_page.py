import http.client
import json
import shutil
import socket
import subprocess
import threading
from contextlib import suppress
from html import escape
from itertools import chain, count, repeat
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from detections import keyframe

pytest.importorskip('starlette')
pytest.importorskip('uvicorn')

from stmixer_mm.projects.live.detection import LiveResult
from stmixer_mm.projects.live.page import LivePage
from stmixer_mm.projects.live.pictures import LivePictures

NASTY = '<img src=x onerror=alert(1)>'
FIGURES = {'frames': 90, 'latency (median), s': 0.25}


class Live(SimpleNamespace):
    """A detection whose results are those in ``results``, one for each event."""

    @property
    def newest(self):
        return next(self.results)


def result(time_s, ids):
    actions = [[(NASTY, 0.9), ('sit', 0.4), ('run', 0.2)] for _ in ids]
    detections = keyframe(time_s, 5, [[0, 0, 3, 3] for _ in ids], actions, ids)
    return LiveResult(detections, (4, 4), 0.0, 0.1)


def make_page(**options):
    """A page of one keyframe."""
    live = Live(name=f'camera {NASTY}', listeners=[], figures=lambda: FIGURES)
    live.results, live.is_connected = repeat(result(1.0, [0])), True
    return LivePage(LivePictures(0.3), live, **options)


@pytest.fixture
def page():
    with make_page() as page:
        yield page


def request(page, path, method='GET', **headers):
    host = page.url.split('/')[2]
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request(method, path, headers={'Host': host, **headers})
    return connection.getresponse()


def status(*args, **headers):
    return request(*args, **headers).status


def test_the_page_and_its_events_are_sent(page):
    for path, kind in ('/', 'html'), ('/page.js', 'javascript'), ('/page.css', 'css'):
        answer = request(page, path)
        assert kind in answer.headers['Content-Type']
        assert "default-src 'self'" in answer.headers['Content-Security-Policy']
    assert status(page, '/%2e%2e/detection.py') == 404
    line = request(page, '/events').readline()
    event = json.loads(line.removeprefix(b'data: '))
    (person,) = event['persons']
    names = [action['action'] for action in person['actions']]
    assert (person['id'], names) == (0, [NASTY, 'sit'])
    assert event['figures'] == FIGURES | {'frames dropped': 0}


def test_connections_that_ask_for_nothing_end(monkeypatch):
    monkeypatch.setattr('stmixer_mm.projects.live.page.REQUEST_S', 0.01)
    with make_page() as page:
        address = page.url.split('/')[2].split(':')
        for connection in [socket.create_connection(address, 20) for _ in range(40)]:
            assert connection.recv(1) == b''
        assert status(page, '/') == 200


def test_pictures_come_one_after_the_other(monkeypatch):
    """The newest to each viewer; closing the page ends their connections."""
    threads = set(threading.enumerate())
    may_go = threading.Semaphore(0)

    def shown(pictures):
        for grey in 10, 200:
            assert may_go.acquire(timeout=20)
            yield np.full((8, 8, 3), grey, np.uint8)

    monkeypatch.setattr(LivePictures, '__iter__', shown)
    with make_page() as page:
        answer, events = request(page, '/picture'), request(page, '/events')
        for grey in 10, 200:
            may_go.release()
            while not (line := answer.readline()).startswith(b'Content-Length'):
                pass
            answer.readline()
            jpeg = np.frombuffer(answer.read(int(line.split()[1])), np.uint8)
            assert abs(cv2.imdecode(jpeg, 0).mean() - grey) < 3
    assert set(threading.enumerate()) == threads
    for response in answer, events:
        with suppress(http.client.IncompleteRead, ConnectionError):
            response.read()  # ends


def test_only_the_page_itself_sets_the_threshold(page):
    """Another site could resolve its own name to this machine, or post to it."""
    host, path = page.url.split('/')[2], '/threshold?value=0.65'
    assert status(page, path, 'POST', Origin='http://evil.example') == 403
    for site in 'cross-site', 'same-site':
        assert status(page, path, 'POST', **{'Sec-Fetch-Site': site}) == 403
    assert status(page, path, 'POST', Host='evil.example') == 400
    assert status(page, path) == 404
    assert page._pictures.score_thr == 0.3
    headers = {'Origin': f'http://{host}', 'Sec-Fetch-Site': 'same-origin'}
    assert status(page, path, 'POST', **headers) == 204
    for wrong in 'nan', '2', 'x', '':
        assert status(page, f'/threshold?value={wrong}', 'POST') == 400
    assert page._pictures.score_thr == 0.65
    assert status(page, '/', Host='localhost:1234') == 200  # a tunnel


def test_beyond_this_machine_the_address_has_a_token():
    with make_page(host='0.0.0.0') as page:
        _, _, host, token, _ = page.url.split('/')
        page.url = f'http://127.0.0.1:{host.rpartition(":")[2]}/'
        assert len(token) > 20
        assert status(page, f'/{token}/', Host='camera.local') == 200
        for path in '/', f'/{token[:-1]}/', '/events':
            assert status(page, path) == 404


@pytest.mark.skipif(shutil.which('chromium') is None, reason='needs Chromium')
def test_the_page_works_in_a_browser(page, tmp_path):
    ids = chain([[0, 1], []], repeat([0]))
    page._live.results = map(result, count(0, 0.5), ids)
    command = ['chromium', '--headless=new', '--no-sandbox', '--disable-gpu']
    command += ['--timeout=5000', '--disable-dev-shm-usage', '--dump-dom']
    command += [f'--user-data-dir={tmp_path}', page.url]
    html = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    name = escape(NASTY, quote=False)
    assert f'<b id="source">camera {name}</b>' in html
    assert f'>{name} 0.90, sit 0.40</li>' in html
    # The timeline: one person was seen once, the other one is absent in between.
    assert '>person 0</span>' in html and '>person 1<' not in html
    assert '<div id="folded">not drawn: 1 seen for less than 1 s</div>' in html
    assert 'width: 0.83' in html  # half a second of a minute
    assert '<td>frames</td><td>90</td>' in html
