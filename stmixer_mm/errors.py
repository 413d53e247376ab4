"""Errors as one sentence each; the traceback of a bug is in a file."""

import difflib
import errno
import os
import re
import signal
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from torch.cuda import OutOfMemoryError

TRACEBACK_SWITCH = 'STMIXER_MM_TRACEBACK'
CORRECT_CODE = f'correct it, or set {TRACEBACK_SWITCH}=1 for the traceback'


class UserError(ValueError):
    """An error that a user can correct; the message is a sentence with the remedy.

    A data loader passes an error of a worker on with its traceback as text, which is
    removed again.
    """

    def __init__(self, message: str) -> None:
        message = message.rpartition(f'.{type(self).__name__}: ')[2].rstrip()
        super().__init__(printable(message))


class UserErrors(UserError):
    """Several errors; on the command line each has a line of its own."""

    def __init__(self, errors: list[UserError]) -> None:
        first = str(errors[0]).removesuffix('.')
        super().__init__(f'{first} (and {len(errors) - 1} more).')
        self.errors = errors


class ErrorCollector:
    """A block that goes on after the errors of its parts, and raises them at its end."""

    def __init__(self) -> None:
        self.errors: list[UserError] = []

    def __enter__(self) -> 'ErrorCollector':
        return self

    @contextmanager
    def collect(self) -> Iterator[None]:
        """A part that an error ends."""
        try:
            yield
        except UserError as error:
            self.errors += getattr(error, 'errors', [error])

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.raise_all()

    def raise_all(self) -> None:
        if self.errors:
            raise UserErrors(self.errors) if len(self.errors) > 1 else self.errors[0]


# Control characters, what turns the direction of text, and bytes that are no UTF-8.
_UNPRINTABLE = re.compile(
    '[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]'
)
# In a URL, up to the last @: a password may have any character.
_LOGIN = re.compile('(?<=://)(?:[^ @]*:[^ ]*|[^ /@]*)@')
_SECRET = re.compile(
    '(?<=[?&])([^ =&]*(?:pass|pwd|token|secret|key|sig|auth|cred)[^ =&]*=)[^ &]*', re.I
)


def printable(text: str) -> str:
    """Text for terminals, logs and files: without secrets of URLs, in one line of UTF-8.

    Characters that a terminal obeys or that XML cannot have are escaped.
    """
    text = _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)
    return _SECRET.sub(r'\1***', _LOGIN.sub('', text))


_PEER_ENDED = re.compile('(closed|reset) by peer|remote process exited')  # gloo, NCCL


@contextmanager
def blame(subject: str, remedy: str = CORRECT_CODE) -> Iterator[None]:
    """Turn any error within into one about ``subject``: a file, a config.

    Raises:
        UserError: '{subject} ({reason}); {remedy}.', unless it was one already.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error), 300, placeholder=' …')
        if ' ' not in reason:
            reason = f'{type(error).__name__} {reason}'.strip()
        if hasattr(error, 'part'):
            reason = f'{error.part}: {reason}'
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = 'make room on the disk'
        raise UserError(f'{subject} ({reason.rstrip(".")}); {remedy}.') from error


@contextmanager
def user_errors() -> Iterator[None]:
    """Print ``error: <one sentence>`` and exit with 1 for any error.

    The traceback of an internal error is kept in a file. If the environment variable
    ``STMIXER_MM_TRACEBACK`` is set, tracebacks are shown. SIGTERM and SIGHUP end the
    process as an exception does, so that unfinished files are removed.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    with suppress(AttributeError):  # not the stream of a notebook
        sys.stdout.reconfigure(errors='backslashreplace')  # names that are no UTF-8
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(TRACEBACK_SWITCH):
            raise
        if isinstance(error, KeyboardInterrupt):
            print('stopped: interrupted by the user', file=sys.stderr)
            sys.exit(130)
        for failure in getattr(error, 'errors', [error]):
            print(f'error: {tell(failure)}', file=sys.stderr, flush=True)
        sys.exit(1)


def explain(error: BaseException) -> str | None:
    """The sentence for an error of the user, None for a bug."""
    reason = str(error).split('. ')[0].rstrip('.')
    if message := _find_killed_worker(error):
        return (
            f'A data loader worker was killed ({message}), probably for want of RAM; '
            'lower num_workers, batch_size or the size of the clips.'
        )
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, RuntimeError) and _PEER_ENDED.search(str(error)):
        return 'Another process of this run has ended; its own error says why.'
    if isinstance(error, OSError) and error.strerror:
        place = f' {error.filename}' if error.filename else ''
        return printable(
            f'Cannot read or write{place} ({error.strerror}); make room, change its '
            'permissions or choose another place.'
        )
    is_full = isinstance(error, OutOfMemoryError | MemoryError)
    if is_full or "can't allocate memory" in reason:
        return (
            f'There is too little RAM or GPU memory ({reason}); lower '
            'train_dataloader.batch_size, sizes or counts, or train with --amp.'
        )
    return None


def _find_killed_worker(error: BaseException | None) -> str | None:
    """PyTorch's words for it; it interrupts any code, which may wrap them."""
    while error is not None:
        if match := re.search(r'DataLoader worker \(pid.*?\)[^.)]*', str(error)):
            return match[0]
        error = error.__cause__ or error.__context__
    return None


def tell(error: Exception) -> str:
    """The sentence for any error; the traceback of a bug goes to a file."""
    return explain(error) or _describe_bug(error)


def _describe_bug(error: Exception) -> str:
    with tempfile.NamedTemporaryFile(
        'w', prefix='stmixer_mm_', suffix='.txt', encoding='utf-8', delete=False
    ) as file:
        file.writelines(traceback.format_exception(error))
    what = printable(' '.join(traceback.format_exception_only(error)[-1].split()))
    return (
        f'Internal error ({what}). The traceback is in {file.name}; please report it, '
        'unless it ends in a part that your config chose.'
    )


def choose(
    setting: str, word: str, choices: Mapping[str, object], *, more: str | None = None
) -> object:
    """The entry of ``choices`` for a word of a config; a module ``more`` adds others.

    Raises:
        UserError: there is none; names the valid words.
    """
    if word not in list(choices):  # the word may be unhashable
        words = ', '.join(map(repr, choices))
        imports = (
            f', or name {more!r} in custom_imports, which adds others' if more else ''
        )
        raise UserError(f'{setting}={word!r} is unknown; use one of {words}{imports}.')
    return choices[word]


def nearest(name: object, valid: Iterable[str], cutoff: float = 0.5) -> str:
    """'; did you mean x?' for the most similar of the valid names, or ''."""
    close = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=cutoff)
    return f'; did you mean {close[0]}?' if close else ''
