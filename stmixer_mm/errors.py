"""Errors as one sentence each; the traceback of a bug is in a file.

Imports nothing heavy: the package's first lines need it (:func:`end_quietly`).
"""

import difflib
import os
import signal
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

TRACEBACK_SWITCH = 'STMIXER_MM_TRACEBACK'
at_end = ExitStack()  # of the tool in this process
CORRECT_CODE = f'correct it, or set {TRACEBACK_SWITCH}=1 to see where it fails'
INTERRUPTED = 'stopped: interrupted by the user'


class UserError(ValueError):
    """What a user can mend; the message is a sentence that says how.

    A data loader hands on an error of a worker with its traceback as text, which this
    one takes off again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f'.{type(self).__name__}: ')[2].rstrip())


@contextmanager
def blame(subject: str, remedy: str = CORRECT_CODE) -> Iterator[None]:
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
    """Print ``error: <one sentence>`` and exit with 1 for any error.

    Of what is no error of the user, the traceback is kept in a file. If the environment
    variable ``STMIXER_MM_TRACEBACK`` is set, all is shown as Python does. SIGTERM
    and SIGHUP end the process as an exception does: what is half written is removed.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(TRACEBACK_SWITCH):
            raise
        if isinstance(error, KeyboardInterrupt):
            print(INTERRUPTED, file=sys.stderr)
            sys.exit(130)
        print(f'error: {tell(error)}', file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        at_end.close()


def end_quietly(
    hook: Callable, kind: type, error: BaseException, trace: object
) -> None:
    """A ``sys.excepthook``, once, that says in one line that the user interrupted."""
    sys.excepthook = hook
    if issubclass(kind, KeyboardInterrupt) and not os.environ.get(TRACEBACK_SWITCH):
        print(INTERRUPTED, file=sys.stderr)
    else:
        hook(kind, error, trace)


def explain(error: BaseException) -> str | None:
    """The sentence for an error of the user, None for a bug."""
    from torch.cuda import OutOfMemoryError

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f' {error.filename}' if error.filename else ''
        return (
            f'Cannot read or write{where} ({error.strerror}); make room, change its '
            'permissions or choose another place.'
        )
    if isinstance(error, OutOfMemoryError):
        return (
            f'The GPU has too little memory ({str(error).split(".")[0]}); lower '
            'train_dataloader.batch_size or train with --amp.'
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        reason = (
            str(error).rpartition('memory: ')[2].rstrip('.') or 'no more can be had'
        )
        return f'There is too little RAM ({reason}); lower sizes or counts.'
    return None


def tell(error: Exception) -> str:
    """The sentence for any error; the traceback of a bug goes to a file."""
    return explain(error) or _describe_bug(error)


def _describe_bug(error: Exception) -> str:
    lines = traceback.format_exception(error)
    with tempfile.NamedTemporaryFile(
        'w', prefix='stmixer_mm_', suffix='.txt', encoding='utf-8', delete=False
    ) as file:
        file.writelines(lines)
    what = ' '.join(traceback.format_exception_only(error)[-1].split())
    return (
        f'Unforeseen ({what}); if it is not the fault of your config, code or data, '
        f'report it with its traceback, which is in {file.name}.'
    )


def choose(setting: str, word: str, choices: Mapping[str, object]) -> object:
    """What a word of a config stands for.

    Raises:
        UserError: It stands for nothing; names the words that do.
    """
    if word not in list(choices):  # also of a word that cannot be hashed
        words = ', '.join(map(repr, choices))
        raise UserError(f'{setting}={word!r} is unknown; use one of {words}.')
    return choices[word]


def nearest(name: object, valid: Iterable[str]) -> str:
    """'; did you mean x?' for the name in ``valid`` that is most like ``name``."""
    close = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.5)
    return f'; did you mean {close[0]}?' if close else ''
