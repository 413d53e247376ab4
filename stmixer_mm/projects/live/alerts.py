"""Alerts of a live stream, told to a URL or a command that the user named."""

import json
import operator
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from queue import Full, Queue
from typing import Annotated, NamedTuple
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from stmixer_mm.command_line import OptionsOf
from stmixer_mm.errors import UserError, blame, nearest, printable
from stmixer_mm.projects.live.detection import Listener, LiveResult, above
from stmixer_mm.structures import Action, Person

TIMEOUT_S = 5.0  # of an attempt
PAUSES_S = 1.0, 4.0  # before the second and the third attempt
MOST_WAITING = 100  # alerts; later ones are left out
LEAVE_S = 3.0  # for those that wait when the stream ends

_COMPARE = {
    '=': operator.eq,
    '!=': operator.ne,
    '<=': operator.le,
    '>=': operator.ge,
    '<': operator.lt,
    '>': operator.gt,
}
_FIELDS = 'action', 'score', 'person', 'person_score'
_TERM = re.compile(r'\s*(\w+)\s*(!=|<=|>=|=|<|>)\s*(.+?)\s*')
_AND = re.compile(r'\s+and\s+(?=\w+\s*[!<>=])')


class Term(NamedTuple):
    """A comparison, such as score > 0.8."""

    field: str  # one of _FIELDS
    compare: Callable[[object, object], bool]
    value: str | float


def parse_condition(text: str, classes: Sequence[str] | None) -> list[Term]:
    """The terms of ``action=wave and score>0.8``, all of which must hold.

    Args:
        text: Comparisons of action, score, person (its id) and person_score by =, !=, <,
            <=, > or >=, joined by ``and``; quotes around a value are optional.
        classes: Names of the actions; None: unknown.

    Raises:
        UserError: names the comparison that is wrong.
    """
    terms = []
    for part in _AND.split(text):
        match = _TERM.fullmatch(part)
        field, compare, value = match.groups() if match else ('', '', '')
        if field not in _FIELDS or (field == 'action' and compare not in ('=', '!=')):
            raise UserError(
                f'--on {text!r}: {part.strip()!r} is no comparison; write, for example, '
                '"action=wave and score>0.8", with action (= or !=), score, person or '
                'person_score.'
            )
        value = value.strip('\'"')
        if field != 'action':
            with blame(
                f'--on {text!r}: {field} is compared with {value!r}', 'give a number'
            ):
                value = float(value)
        elif classes and value not in classes:
            raise UserError(
                f'--on {text!r}: the model has no action {value!r}'
                f'{nearest(value, classes) or "."}'
            )
        terms.append(Term(field, _COMPARE[compare], value))
    return terms


def holds(terms: list[Term], person: Person, action: Action) -> bool:
    """True if all terms hold; a term on a score that a person lacks does not."""
    values = dict(
        action=action.action,
        score=action.score,
        person=person.id,
        person_score=person.score,
    )
    return all(
        values[term.field] is not None and term.compare(values[term.field], term.value)
        for term in terms
    )


class Alerts(Listener):
    """Tells when a person begins what a condition describes.

    Once for each person, action and stretch of successive keyframes; in a thread of its
    own, so that detection never waits.

    Args:
        terms: From :func:`parse_condition`.
        send: Called with an event as JSON; raises if it fails.
        target: Names it in messages.
        source: Name of the stream.
        score_thr: Actions with lower scores do not count.
        log: Called with messages for the user.
    """

    def __init__(
        self,
        terms: list[Term],
        send: Callable[[bytes], object],
        *,
        target: str,
        source: str,
        score_thr: float,
        log: Callable[[str], object],
    ) -> None:
        self._terms, self._send, self._log = terms, send, log
        self._target, self._source, self._score_thr = target, source, score_thr
        self._active: set[tuple[int, str]] = set()
        self._waiting: Queue[bytes | None] = Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name='alerts', daemon=True)
        self._thread.start()

    def on_result(self, result: LiveResult) -> None:
        active = set()
        for person in above(result.keyframe, self._score_thr).persons:
            for action in person.actions:
                if holds(self._terms, person, action):
                    active.add((person.id, action.action))
                    if (person.id, action.action) not in self._active:
                        self._put(result, person, action)
        self._active = active

    def _put(self, result: LiveResult, person: Person, action: Action) -> None:
        captured_at = datetime.fromtimestamp(result.captured_at).astimezone()
        event = dict(
            source=self._source,
            captured_at=captured_at.isoformat(timespec='milliseconds'),
            time_s=round(result.keyframe.time_s, 3),
            person=person.id,
            action=action.action,
            score=round(action.score, 4),
            bbox=[round(side, 2) for side in person.bbox],
        )
        try:
            self._waiting.put_nowait(json.dumps(event).encode())
        except Full:
            self._log(f'alert left out, as {MOST_WAITING} wait for {self._target}')

    def close(self) -> None:
        """Send what waits, for a few seconds."""
        with suppress(Full):
            self._waiting.put_nowait(None)
        self._thread.join(LEAVE_S)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                self._send(event)
            except Exception as error:
                self._log(f'alert not taken by {self._target}: {printable(str(error))}')


class _NoRedirect(HTTPRedirectHandler):
    """Only what the user named is called."""

    def redirect_request(self, *args: object) -> None:
        return None


def post(url: str, event: bytes) -> None:
    """Send an event, in three attempts unless the answer is final.

    Raises:
        OSError: the last attempt failed, or the server refuses it or redirects.
    """
    request = Request(url, event, {'Content-Type': 'application/json'})
    for pause_s in (*PAUSES_S, None):
        try:
            build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S).close()
            return
        except OSError as error:
            is_final = isinstance(error, HTTPError) and error.code < 500
            if is_final or pause_s is None:
                raise
        time.sleep(pause_s)


def run_command(command: list[str], event: bytes) -> None:
    """Run a program, without a shell, with an event on its standard input."""
    subprocess.run(command, input=event, timeout=TIMEOUT_S, check=True)


def make_alerts(
    *,
    on: str | None = None,
    post_to: Annotated[str | None, dict(flag='--post', metavar='URL')] = None,
    run: Annotated[str | None, dict(metavar='COMMAND')] = None,
) -> Callable[..., list[Alerts]]:
    """
    Args:
        on: Tell when this begins, once for each person and stretch, such as
            "action=wave and score>0.8".
        post_to: Send each alert to this http(s) address, as JSON.
        run: Run this program for each alert, with the JSON on its standard input.

    Returns:
        A function of ``classes`` and the options of :class:`Alerts` that makes them.
    """
    targets = {}
    if post_to is not None:
        if not re.match('https?://[^/]', post_to):
            raise UserError(
                f'--post {post_to} is no http or https address; correct it.'
            )
        targets[post_to] = partial(post, post_to)
    if run is not None:
        with blame(f'--run {run!r} cannot be run', 'correct the command'):
            command = shlex.split(run)
            if shutil.which(command[0]) is None:
                raise ValueError(f'there is no program {command[0]}')
        targets[run] = partial(run_command, command)
    if (on is None) != (not targets):
        raise UserError('Give --on with --post or --run, which says who is told.')

    def make(classes: Sequence[str] | None, **options) -> list[Alerts]:
        terms = parse_condition(on, classes) if on else []
        return [
            Alerts(terms, send, target=printable(target), **options)
            for target, send in targets.items()
        ]

    return make


AlertOptions = Annotated[dict, OptionsOf(make_alerts)]
