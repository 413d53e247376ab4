"""Alerts of live detection: once for a person and stretch, to whom the user named."""

import json
import sys
import threading
import time
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from detections import keyframe
from run_tool import named, run_tool
from tiny_stmixer import write_video

from stmixer_mm.errors import UserError
from stmixer_mm.projects.live import alerts as module
from stmixer_mm.projects.live.alerts import Alerts, holds, parse_condition, post
from stmixer_mm.projects.live.detection import LiveResult
from stmixer_mm.structures import Action, Person

CLASSES = 'wave', 'talk and walk', 'sit'


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('action=wave', True),
        ('action = wave and score > 0.8', True),
        ('action=wave and score>0.9', False),
        ('score>=0.9 and person=3', True),
        ('action!="wave"', False),
        ('person_score<0.5', False),  # it has none
        ("action='talk and walk' and score<1", False),
        ('action=talk and walk', False),
    ],
)
def test_all_terms_must_hold(text, expected):
    person = Person(id=3, bbox=(0, 0, 1, 1), actions=[])
    terms = parse_condition(text, CLASSES)
    assert holds(terms, person, Action('wave', 0.9)) is expected


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        *((text, 'is no comparison') for text in ('', 'action>wave', '__class__=1')),
        ('action=wave or score>1', "no action 'wave or score>1'"),
        ('action=wawe', 'did you mean wave?'),
        ('score>high', 'give a number'),
        ('action=wave and', "no action 'wave and'"),
    ],
)
def test_a_wrong_condition_is_one_sentence(text, message):
    with pytest.raises(UserError, match=f'--on .*{message}'):
        parse_condition(text, CLASSES)


def result_at(second, persons):
    actions = [[('wave', score)] for score in persons.values()]
    bboxes = [[0, 0, 9, 9]] * len(persons)
    detections = keyframe(float(second), second, bboxes, actions, [*persons])
    return LiveResult(detections, (9, 9), 0.0, 0.1)


def make(send, log=print):
    options = dict(target='them', source='camera 0', score_thr=0.3, log=log)
    return Alerts(parse_condition('action=wave', CLASSES), send, **options)


def test_a_person_is_told_once_a_stretch():
    events = []
    alerts = make(lambda event: events.append(json.loads(event)))
    stretches = [{1: 0.9}, {1: 0.9, 2: 0.5}, {2: 0.9, 1: 0.2}, {}, {1: 0.4}]
    for second, persons in enumerate(stretches):
        alerts.on_result(result_at(second, persons))
    alerts.close()
    moments = [(event['person'], event['time_s']) for event in events]
    assert moments == [(1, 0.0), (2, 1.0), (1, 4.0)]
    assert events[0]['source'] == 'camera 0' and events[0]['bbox'] == [0, 0, 9, 9]


def test_detection_does_not_wait(monkeypatch):
    """A receiver that hangs costs alerts, and each is said."""
    monkeypatch.setattr(module, 'MOST_WAITING', 2)
    monkeypatch.setattr(module, 'LEAVE_S', 0.1)
    is_over, messages = threading.Event(), []
    alerts = make(lambda event: is_over.wait(), messages.append)
    for second in range(20):
        alerts.on_result(result_at(second, {second: 0.9}))
    alerts.close()
    is_over.set()
    assert len(messages) in (17, 18) and 'left out' in messages[0]


@pytest.fixture
def serve():
    """Start a server that answers with a status, or not at all; returns its address."""
    servers = []

    def start(answers, received):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                received.append(self.rfile.read(int(self.headers['Content-Length'])))
                if answer := answers[min(len(received), len(answers)) - 1]:
                    self.send_response(answer)
                    self.send_header('Location', f'{url}/other')
                    self.end_headers()
                else:
                    time.sleep(1)

            do_GET = do_POST

        servers.append(ThreadingHTTPServer(('127.0.0.1', 0), Handler))
        url = f'http://127.0.0.1:{servers[0].server_port}'
        threading.Thread(target=servers[0].serve_forever).start()
        return url

    yield start
    servers[0].shutdown()
    servers[0].server_close()


@pytest.mark.parametrize(
    ('answers', 'attempts', 'fails'),
    [
        ([204], 1, False),
        ([503, 200], 2, False),
        ([500], 3, True),
        ([404], 1, True),
        ([307], 1, True),
        ([None], 3, True),
    ],
)
def test_attempts_are_bounded(serve, monkeypatch, answers, attempts, fails):
    monkeypatch.setattr(module, 'TIMEOUT_S', 0.1)
    monkeypatch.setattr(module, 'PAUSES_S', (0.0, 0.0))
    received = []
    with pytest.raises(OSError) if fails else nullcontext():
        post(serve(answers, received), b'{}')
    assert received == [b'{}'] * attempts


def test_the_tool_tells_a_server_and_a_program(tiny_model, tmp_path, serve, capfd):
    video = write_video(tmp_path / 'new.mp4', frames=10, fps=10, size=(96, 64))
    script, events = tmp_path / 'tell.py', tmp_path / 'events.json'
    script.write_text(f'import sys; open({str(events)!r}, "a").write(sys.stdin.read())')
    received = []
    options = ['--on', 'score>=0', '--post', serve([200], received), '--score-thr', 0]
    options += ['--run', f'{sys.executable} {script}']
    options += ['--cfg-options', 'model.head.score_thr=0.0']
    run_tool('live', video, *named(tiny_model), *options)
    pairs = {(event['person'], event['action']) for event in map(json.loads, received)}
    assert len(pairs) == len(received) > 0
    assert events.exists()
