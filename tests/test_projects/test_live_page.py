"""The page of live detection, without a browser."""

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from detections import keyframe
from tiny_stmixer import write_video

from stmixer_mm.errors import UserError
from stmixer_mm.projects.live import page as page_module
from stmixer_mm.projects.live import uploads
from stmixer_mm.projects.live.detection import Figures, LiveResult
from stmixer_mm.projects.live.page import LivePage, Timeline
from stmixer_mm.projects.live.pictures import LivePictures
from stmixer_mm.projects.live.uploads import detect_upload
from stmixer_mm.structures import VideoDetections

FIGURES = Figures(90, 9, 2, 1, 1.5, (0.25, 0.5), True)
NASTY = '<img src=x onerror=alert(1)>'


def found(time_s=1.0, actions=((('run', 0.9), ('sit', 0.2)),), ids=(0,)):
    return keyframe(
        time_s, 5, np.tile([0, 0, 3, 3.0], (len(ids), 1)), list(actions), list(ids)
    )


def detect(upload):
    with open(upload.path, 'rb') as file:
        return VideoDetections(source=f'{upload.name}: {len(file.read())} bytes')


@contextmanager
def serve(**options):
    said = []
    options = dict(name=NASTY, detect=detect, say=said.append) | options
    page = LivePage(LivePictures(0.3), lambda: FIGURES, **options)
    page.start()
    try:
        yield page
    finally:
        page.close()
        assert not said


@pytest.fixture
def page():
    with serve(max_upload=100) as page:
        yield page


def connect(page):
    port = int(page.url.split('/')[2].rpartition(':')[2])
    return http.client.HTTPConnection('127.0.0.1', port, timeout=20)


def ask(page, method, path, body=None, **headers):
    connection = connect(page)
    connection.request(method, page.root + path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


def wait_for(is_so):
    while not is_so():
        time.sleep(0.01)


def test_the_page_and_what_belongs_to_it_are_sent(page):
    for path, kind in ('', 'html'), ('page.js', 'javascript'), ('page.css', 'css'):
        status, text, headers = ask(page, 'GET', path)
        assert status == 200
        assert text
        assert kind in headers['Content-Type']
        assert headers['Content-Security-Policy'].startswith("default-src 'self'")
        assert headers['X-Content-Type-Options'] == 'nosniff'
    assert ask(page, 'GET', '../page.py')[0] == 404
    assert ask(page, 'GET', '%2e%2e/detection.py')[0] == 404


def read_event(page):
    connection = connect(page)
    connection.request('GET', f'{page.root}events')
    answer = connection.getresponse()
    return json.loads(answer.readline().removeprefix(b'data: '))


def test_an_event_says_who_does_what_and_how_well_it_keeps_up(page):
    page.on_result(LiveResult(found(), (4, 4), 0.0, 0.1))
    event = read_event(page)
    assert event['source'] == NASTY
    assert [p['actions'] for p in event['persons']] == [[dict(action='run', score=0.9)]]
    assert [row['action'] for row in event['timeline']] == ['0: run']
    assert dict(event['figures']) == {
        'frames': '90',
        'dropped': '0',
        'keyframes': '9',
        'per second': '1.5',
        'missed': '2',
        'latency (median, 95 %)': '0.25 s, 0.50 s',
        'connections': '1',
    }


def test_pictures_come_one_after_the_other(page):
    connection = connect(page)
    connection.request('GET', f'{page.root}picture')
    answer = connection.getresponse()
    wait_for(lambda: page.pictures.watchers)
    for grey in 10, 200:
        page.show(np.full((8, 8, 3), grey, np.uint8))
        while not (line := answer.readline()).startswith(b'Content-Length'):
            pass
        answer.readline()
        jpeg = answer.read(int(line.split()[1]))
        assert abs(cv2.imdecode(np.frombuffer(jpeg, np.uint8), 0).mean() - grey) < 3


def test_the_threshold_is_set(page):
    assert ask(page, 'POST', 'threshold', '0.65')[0] == 204
    assert page.pictures.score_thr == 0.65
    for wrong in 'nan', '2', '-1', 'x', '', '0':
        assert ask(page, 'POST', 'threshold', wrong)[0] == 400
    assert ask(page, 'POST', 'threshold', '0.5' + '0' * 50)[0] == 413
    assert page.pictures.score_thr == 0.65


def test_a_file_is_sent_and_its_json_comes_back(page):
    status, text, headers = ask(page, 'POST', 'detect?name=..%2Fa%00b.mp4', b'x' * 100)
    assert status == 200
    assert headers['Content-Type'] == 'application/json'
    assert json.loads(text)['video'] == '../ab.mp4: 100 bytes'


def test_a_file_that_is_too_large_is_refused_before_it_is_read(page):
    connection = connect(page)
    connection.putrequest('POST', f'{page.root}detect')
    connection.putheader('Content-Length', '101')
    connection.endheaders()
    assert connection.getresponse().status == 413


@pytest.mark.parametrize('length', ['', '-1', '1e3', '٣', '9' * 30])
def test_a_length_that_is_none_is_refused(page, length):
    connection = connect(page)
    connection.putrequest('POST', f'{page.root}detect')
    connection.putheader('Content-Length', length.encode())
    connection.endheaders()
    assert connection.getresponse().status == 411


def test_a_file_shorter_than_it_claims_is_refused(page):
    port = connect(page).port
    with socket.create_connection(('127.0.0.1', port)) as client:
        head = f'POST {page.root}detect HTTP/1.1\r\nHost: localhost\r\n'
        client.sendall(f'{head}Content-Length: 50\r\n\r\nabc'.encode())
        client.shutdown(socket.SHUT_WR)
        answer = client.makefile('rb').read()
    assert answer.startswith(b'HTTP/1.0 400')
    assert answer.endswith(b'The video broke off; send it again.')


def test_one_file_at_a_time(page):
    with page.uploading:
        assert ask(page, 'POST', 'detect', b'x')[0] == 503
    assert ask(page, 'POST', 'detect', b'x')[0] == 200


@pytest.mark.parametrize('host', ['evil.example', '127.0.0.1.evil.example', ''])
def test_another_name_of_this_machine_is_refused(page, host):
    """Else a site could resolve its own name to 127.0.0.1 and read the page."""
    assert ask(page, 'GET', '', Host=host)[0] == 403
    assert ask(page, 'POST', 'threshold', '0.5', Host=host)[0] == 403
    assert ask(page, 'GET', '', Host='localhost:1234')[0] == 200  # a tunnel


def test_requests_of_other_sites_are_refused(page):
    host = page.url.split('/')[2]
    for origin in 'http://evil.example', 'null', f'https://{host}':
        assert ask(page, 'POST', 'threshold', '0.5', Origin=origin)[0] == 403
    assert ask(page, 'POST', 'threshold', '0.5', Origin=f'http://{host}')[0] == 204


def test_beyond_this_machine_the_address_has_a_token():
    with serve(host='0.0.0.0') as page:
        assert len(page.root) > 20
        assert ask(page, 'GET', '', Host='camera.local')[0] == 200
        for root in '/', f'/{"x" * 22}/', page.root[:-2] + '/':
            connection = connect(page)
            connection.request('GET', root)
            assert connection.getresponse().status == 403


def test_a_port_in_use_is_one_sentence(page):
    port = connect(page).port
    with pytest.raises(UserError, match=f'127.0.0.1:{port} .*in use.*--page'):
        LivePage(LivePictures(), lambda: FIGURES, name='', detect=detect, port=port)


def test_connections_are_limited_in_number_and_time(monkeypatch):
    monkeypatch.setattr(page_module, 'MAX_CONNECTIONS', 2)
    with serve() as page:
        address = '127.0.0.1', connect(page).port
        waiting = [socket.create_connection(address) for _ in range(2)]
        wait_for(lambda: len(page._server._deadlines) == 2)
        with socket.create_connection(address) as third:
            assert third.recv(1) == b''
        for client in waiting:
            client.close()
        wait_for(lambda: not page._server._deadlines)

        monkeypatch.setattr(page_module, '_REQUEST_S', 0.5)
        with socket.create_connection(address) as slow:  # whose request never ends
            slow.sendall(b'GET / HTTP/1.1\r\nX: ')
            assert slow.recv(1) == b''
        monkeypatch.undo()
        wait_for(lambda: not page._server._deadlines)
        assert ask(page, 'GET', '')[0] == 200


def test_closing_ends_all_connections():
    before = set(threading.enumerate())
    with serve() as page:
        clients = [connect(page) for _ in range(3)]
        for client, path in zip(clients, ('picture', 'events', ''), strict=True):
            client.request('GET', page.root + path)
        clients[1].getresponse().readline()
    assert set(threading.enumerate()) == before


def test_what_goes_on_is_one_span():
    """It lasts until the next keyframe, unless the stream broke."""
    run, sit = [('run', 0.9)], [('sit', 0.9)]
    timeline = Timeline()
    for time_s, actions in enumerate([run, run, sit, run]):
        timeline.extend(found(float(time_s), [actions]))
    spans = {row['action']: row['spans'] for row in timeline.rows()}
    assert spans == {'0: run': [[0, 2], [3, 3]], '0: sit': [[2, 3]]}
    timeline.cut()
    timeline.extend(found(62.5, [run], ids=[1]))
    spans = {row['action']: row['spans'] for row in timeline.rows()}
    assert spans == {'0: run': [[3, 3]], '0: sit': [[2, 3]], '1: run': [[62.5, 62.5]]}


def test_the_timeline_is_bounded():
    timeline = Timeline()
    for number in range(300):
        timeline.extend(found(number / 100, [[('run', 0.9)]], ids=[number]))
    rows = timeline.rows()
    assert rows[-1]['action'] == '299: run'
    assert len(rows) == 100


class TestUploads:
    @pytest.fixture
    def video(self, tmp_path):
        return write_video(tmp_path / 'v.mp4')

    @pytest.fixture
    def send(self, monkeypatch):
        monkeypatch.setattr(
            uploads, 'detect_video', lambda *_, **__: iter([found(), found(2.0)])
        )
        model = type('Model', (), dict(classes=('run', 'sit')))

        def send(path, *, is_awaited=lambda: True):
            upload = page_module.Upload(str(path), 'a.mp4', is_awaited)
            return detect_upload(model, upload, threading.Lock())

        return send

    def test_a_video_is_detected_in(self, send, video):
        result = send(video)
        assert result.source == 'a.mp4'
        assert [one.time_s for one in result.keyframes] == [1, 2]

    def test_a_sender_who_leaves_ends_it(self, send, video):
        with pytest.raises(UserError, match='Nobody waits'):
            send(video, is_awaited=lambda: False)

    @pytest.mark.parametrize(
        'content', ['', 'abc', '#EXTM3U\n{}', 'ffconcat version 1.0\nfile {}']
    )
    def test_what_is_no_video_is_refused(self, send, video, tmp_path, content):
        """Playlists neither, which name other files."""
        path = tmp_path / 'upload'
        path.write_text(content.format(video))
        with pytest.raises(UserError, match='not a video of a usual format'):
            send(path)

    @pytest.mark.parametrize('limit', ['LONGEST_S', 'MOST_PIXELS'])
    def test_what_is_too_long_or_large_is_refused(
        self, send, video, monkeypatch, limit
    ):
        monkeypatch.setattr(uploads, limit, 0.1)
        with pytest.raises(UserError, match='can be sent'):
            send(video)
