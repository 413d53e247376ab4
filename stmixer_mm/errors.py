"""User errors as one sentence, real bugs with their traceback."""

import difflib
import errno
import inspect
import linecache
import os
import pickle
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stmixer_mm.argument_types import wrong_type_sentence
from stmixer_mm.engine.checkpoints import unreadable_sentence

TRACEBACK_SWITCH = 'STMIXER_MM_TRACEBACK'
_PACKAGE = str(Path(__file__).parent) + os.sep
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# These tell not whether the file was to be read or written.
_CLOSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR)


class UserError(ValueError):
    """What a user can mend; the message is a sentence that says how."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Print ``error: <one sentence>`` and exit with 1 for errors of the user.

    Everything else keeps its traceback, and so does all if the environment variable
    ``STMIXER_MM_TRACEBACK`` is set.
    """
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get(TRACEBACK_SWITCH):
            raise
        print('stopped: interrupted by the user', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentence = None if os.environ.get(TRACEBACK_SWITCH) else explain(error)
        if sentence is None:
            raise
        print(f'error: {sentence}', file=sys.stderr, flush=True)
        sys.exit(1)


def explain(error: BaseException) -> str | None:
    """The sentence for an error of the user, None for a bug.

    An error of the user is what this package raises on purpose (also in a worker of
    a data loader), a config part that cannot be built, a file that cannot be opened
    or written, or a GPU that is too small.
    """
    if isinstance(error, UserError):
        return str(error)
    for explanation in (
        _raised_here,
        _raised_in_worker,
        _unbuildable_part,
        _unreadable_checkpoint,
        _disk_error,
        _out_of_memory,
    ):
        sentence = explanation(error)
        if sentence:
            return sentence
    return None


def nearest(name: str, valid: Iterable[str]) -> str:
    """'; did you mean x?' for the name in ``valid`` that is most like ``name``."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f'; did you mean {close[0]}?' if close else ''


def valid_arguments(part: type) -> list[str]:
    """Names of the arguments that a class takes, its base classes' with ``**kwargs``."""
    names: dict[str, None] = {}
    for base in inspect.getmro(part):
        if '__init__' not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        kinds = {parameter.kind for parameter in parameters}
        names.update(
            (parameter.name, None)
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        )
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return list(names)


def _is_raise_here(filename: str, line: int) -> bool:
    return filename.startswith(_PACKAGE) and linecache.getline(
        filename, line
    ).lstrip().startswith('raise ')


def _raised_here(error: BaseException) -> str | None:
    frames = traceback.extract_tb(error.__traceback__)
    if frames and _is_raise_here(frames[-1].filename, frames[-1].lineno):
        text = _text(error)
        # Such a one names its part and the nearest argument below.
        return None if 'unexpected keyword argument' in text else text
    return None


def _text(error: BaseException) -> str:
    # str(KeyError) is the repr of its message.
    return str(error.args[0]) if isinstance(error, KeyError) else str(error)


def _raised_in_worker(error: BaseException) -> str | None:
    # torch hands on the worker's traceback as the text of the error.
    text = _text(error)
    if not re.match(r'Caught \w+ in DataLoader worker process', text):
        return None
    places = re.findall(r'^  File "(.+)", line (\d+), in ', text, re.MULTILINE)
    if not places or not _is_raise_here(places[-1][0], int(places[-1][1])):
        return None
    return re.split(r'^[\w.]*Error: ', text, flags=re.MULTILINE)[-1].strip()


def _build_frames(error: BaseException) -> Iterator[dict]:
    """Local variables of mmengine's builds of parts, the innermost first."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        if frame.f_code.co_name == 'build_from_cfg':
            yield frame.f_locals


def _unbuildable_part(error: BaseException) -> str | None:
    text = _text(error)
    unknown = re.match(r'(\S+) is not in the (\S+)::(.+?) registry', text)
    if isinstance(error, KeyError) and unknown:
        name, scope, kind = unknown.groups()
        registry = next((local['registry'] for local in _build_frames(error)), None)
        known = registry.module_dict if registry is not None else {}
        return (
            f'The config asks for type={name!r}, which is not among the {kind}s of '
            f'{scope}{nearest(name, known) or "; correct it or import its module."}'
        )
    # A value that is no config fails before its own class is known.
    build = next((local for local in _build_frames(error) if 'obj_cls' in local), {})
    part = build.get('obj_cls')
    if not inspect.isclass(part) or not isinstance(
        error, AssertionError | TypeError | ValueError
    ):
        return None
    wrong = re.search(r"unexpected keyword argument '(\w+)'", text)
    if wrong:
        return wrong_argument_sentence(part, wrong[1])
    lacking = re.search(r'missing \d+ required .*?arguments?: (.+)$', text)
    if lacking:
        return (
            f'The config part type={part.__name__!r} lacks what it requires: '
            f'{lacking[1]}'
        )
    sentence = wrong_type_sentence(part, build['args'])
    last = traceback.extract_tb(error.__traceback__)[-1]
    is_bug = last.filename.startswith(_PACKAGE) and not isinstance(
        error, AssertionError
    )
    if sentence or is_bug:
        return sentence
    return (
        f'The config part type={part.__name__!r} refuses its arguments '
        f'({" ".join(text.split()) or last.line}); correct them '
        f'({TRACEBACK_SWITCH}=1 shows where it fails).'
    )


def wrong_argument_sentence(part: type, argument: str, *, place: str = '') -> str:
    """The sentence for an ``argument`` that the class ``part`` does not take."""
    where = f' ({place})' if place else ''
    valid = valid_arguments(part)
    near = nearest(argument, valid)
    remedy = near or f'; it takes {", ".join(valid) or "none"}'
    if place.startswith('model.'):
        # A child config that names another type inherits the arguments of the old one.
        remedy = f' (to replace a part, give it _delete_=True){remedy}'
    return (
        f'The config part type={part.__name__!r}{where} has no argument '
        f'{argument!r}{remedy}'
    )


def _unreadable_checkpoint(error: BaseException) -> str | None:
    if not isinstance(error, pickle.UnpicklingError):
        return None
    return unreadable_sentence('that was to be loaded', error)


def _disk_error(error: BaseException) -> str | None:
    if not isinstance(error, OSError) or error.errno not in (*_FULL, *_CLOSED):
        return None
    where = f' {error.filename}' if error.filename else ''
    if error.errno in _CLOSED:
        return (
            f'Cannot open{where} ({error.strerror}); choose another place or '
            'change its permissions.'
        )
    return f'Cannot write{where} ({error.strerror}); make room or choose another place.'


def _out_of_memory(error: BaseException) -> str | None:
    if not isinstance(error, torch.cuda.OutOfMemoryError):
        return None
    return (
        f'The GPU has too little memory ({str(error).split(".")[0]}); lower '
        f'train_dataloader.batch_size or train with --amp.'
    )
