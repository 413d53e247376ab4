"""Errors that a user can mend, as one sentence; bugs keep their traceback."""

import difflib
import os
import signal
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

TRACEBACK_SWITCH = 'STMIXER_MM_TRACEBACK'
at_end = ExitStack()  # of the tool in this process


class UserError(ValueError):
    """What a user can mend; the message is a sentence that says how.

    A data loader hands on an error of a worker with its traceback as text, which this
    one takes off again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f'.{type(self).__name__}: ')[2].rstrip())


@contextmanager
def blame(subject: str, remedy: str) -> Iterator[None]:
    """Whatever fails within is the fault of ``subject``: a file, a config.

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
        raise UserError(f'{subject} ({reason.rstrip(".")}); {remedy}.') from error


@contextmanager
def user_errors() -> Iterator[None]:
    """Print ``error: <one sentence>`` and exit with 1 for errors of the user.

    Everything else keeps its traceback, and so does all if the environment variable
    ``STMIXER_MM_TRACEBACK`` is set. SIGTERM and SIGHUP end the process as an exception
    does: what is half written is removed.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    if os.environ.get(TRACEBACK_SWITCH):
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        print('stopped: interrupted by the user', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        print(f'error: {sentence}', file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        at_end.close()


def explain(error: BaseException) -> str | None:
    """The sentence for an error of the user, None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f' {error.filename}' if error.filename else ''
        return (
            f'Cannot read or write{where} ({error.strerror}); make room, change its '
            'permissions or choose another place.'
        )
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            f'The GPU has too little memory ({str(error).split(".")[0]}); lower '
            'train_dataloader.batch_size or train with --amp.'
        )
    return None


def choose(setting: str, word: str, choices: Mapping[str, object]) -> object:
    """What a word of a config stands for.

    Raises:
        UserError: It stands for nothing; names the words that do.
    """
    if word not in list(choices):  # also of a word that cannot be hashed
        words = ', '.join(map(repr, choices))
        raise UserError(f'{setting}={word!r} is unknown; use one of {words}.')
    return choices[word]


def nearest(name: str, valid: Iterable[str]) -> str:
    """'; did you mean x?' for the name in ``valid`` that is most like ``name``."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f'; did you mean {close[0]}?' if close else ''
