"""Files that can be read, and files that are whole or not there.

The latter are written under another name, then renamed. No file is both: a file that a
tool has claimed as output cannot be read, under whatever name or link.
"""

import fcntl
import json
import os
import resource
import secrets
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmengine.fileio import LocalBackend, register_backend

from stmixer_mm.errors import UserError, at_end, blame

ATOMIC_BACKEND = 'stmixer_mm_atomic'
# Small Python objects take up to 30 times what they take in a pickle.
RAM_PER_BYTE, RAM_OF_ANY_FILE = 32, 2**29
# What the tool in this process is going to write, by path and inode: the option that
# names it; and, once it was read, why it must not be written.
_OUTPUTS: dict[object, str] = {}
_REFUSALS: dict[object, str] = {}
_PART = '.stmixer_mm-{}.part'
_LIMITING = threading.RLock()


def check_file(
    path: str | Path,
    *,
    subject: str | None = None,
    remedy: str = 'correct its path',
) -> None:
    """Prove that a file is there and can be read.

    Args:
        path: Where it should be.
        subject: Begins the sentence; by default "PATH: the file".
        remedy: What to do if it is not there.

    Raises:
        UserError: it is missing, a folder, may not be read, or is to be written.
    """
    check_no_output(path)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            # Permission bits say nothing to root or on a network's file system.
            open(path, 'rb').close()
            return
        what = 'is a folder' if stat.S_ISDIR(mode) else 'is not a regular file'
    except (FileNotFoundError, NotADirectoryError):
        what = 'does not exist'
    except OSError as error:
        what = f'cannot be read ({error.strerror})'
        remedy = 'make it readable or give another file'
    raise UserError(f'{subject or f"{path}: the file"} {what}; {remedy}.')


@contextmanager
def ram_for(size: int) -> Iterator[None]:
    """Limit the RAM for reading a file of ``size`` bytes in proportion, on Linux.

    A pickle of 9 bytes can ask for any amount.

    Raises:
        MemoryError: from what asks for more.
    """
    try:
        used = int(Path('/proc/self/statm').read_text().split()[0])
    except OSError:
        yield
        return
    limit = used * resource.getpagesize() + RAM_PER_BYTE * size + RAM_OF_ANY_FILE
    with _LIMITING:  # one thread's limit must not outlast another's
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        if soft == resource.RLIM_INFINITY or limit < soft:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def remove_parts(folder: str | Path) -> None:
    """Remove what killed processes, not running ones, were writing to a folder."""
    for part in Path(folder).glob(_PART.format('*') + '*'):
        is_folder = part.is_dir()
        with suppress(OSError):  # BlockingIOError: it is being written
            mode = os.O_RDONLY if is_folder else os.O_RDWR
            file = os.open(part, mode | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(part) if is_folder else part.unlink()
            finally:
                os.close(file)


@contextmanager
def part_folder(beside: str | Path) -> Iterator[Path]:
    """Yield a new hidden folder in ``beside`` for unfinished files; then remove it."""
    folder = Path(beside, _PART.format(secrets.token_hex(8)))
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # of file systems without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a name to write to; it becomes ``path`` when the block succeeds.

    When the block raises, what was written is removed and ``path`` keeps its
    earlier content. The name is a new hidden file's beside ``path``.
    """
    path = Path(path)
    replaced = [*_identities(path)] if _OUTPUTS else []
    for identity in replaced:
        if identity in _REFUSALS:
            raise UserError(_REFUSALS[identity])
    part = path.with_name(_PART.format(secrets.token_hex(8)) + path.suffix)
    with open(part, 'xb') as file:  # exclusively: no link is followed
        try:
            with suppress(OSError):  # of file systems without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield part
            os.replace(part, path)
            for inode in replaced[1:]:  # may be another file's from now on
                _OUTPUTS.pop(inode, None)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def open_atomically(path: str | Path, mode: str = 'w', **kwargs) -> Iterator[IO]:
    """``open`` for a file that is whole or not there after a kill or on a full disk."""
    with atomic_path(path) as part, open(part, mode, **kwargs) as file:
        yield file
        file.flush()
        # Some file systems notice only here that there is no room.
        os.fsync(file.fileno())


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one step."""
    with open_atomically(path, 'wb') as file:
        file.write(data)


@register_backend(ATOMIC_BACKEND, force=True)
class AtomicLocalBackend(LocalBackend):
    """The local file backend of mmengine, with writes that are whole or not there."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


def check_writable_dir(folder: str | Path, *, purpose: str) -> None:
    """Make ``folder`` if need be and prove that files can be written to it.

    Args:
        folder: Where files are to be written.
        purpose: As in 'work dir', for the message.

    Raises:
        UserError: it cannot be written to.
    """
    subject = f'The {purpose} {folder} cannot be written to'
    with blame(subject, 'choose another one or make it writable'):
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Permission bits say nothing to root or on a read-only file system.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'.')
    remove_parts(folder)


def _identities(path: str | Path) -> Iterator[object]:
    """What a file has in common with its links."""
    yield os.path.realpath(path)
    with suppress(OSError):  # it is not there
        found = os.stat(path)
        yield found.st_dev, found.st_ino


def check_no_output(path: str | Path) -> None:
    """Raises ``UserError`` when the tool is going to write the file that it reads."""
    for identity in _identities(path) if _OUTPUTS else ():
        if purpose := _OUTPUTS.get(identity):
            # Where faults are collected, it is the writer that stops.
            _REFUSALS[identity] = (
                f'{path} is read, and {purpose} would replace it; give {purpose} '
                'another name.'
            )
            raise UserError(_REFUSALS[identity])


def claim_outputs(
    purpose: str, *paths: str | Path, beside: str | Path | None = None
) -> None:
    """Note what a tool is going to write, and say on stderr what that replaces.

    From now on these files cannot be read, nor be other outputs.

    Args:
        purpose: As in '--out', for the message.
        paths: Where it is to be written.
        beside: For files that no option names: the one that they belong to. They may
            replace earlier ones only together with that.

    Raises:
        UserError: one is another output too, or must not be replaced.
    """
    for path in paths:
        for identity in _identities(path):
            if other := _OUTPUTS.get(identity):
                raise UserError(
                    f'{purpose} {path} is the file of {other} too; give each a name of '
                    'its own.'
                )
    replaced = [path for path in paths if os.path.exists(path)]
    if replaced:
        if beside is not None and not os.path.exists(beside):
            raise UserError(
                f'{replaced[0]} is there already, without {beside}, and {purpose} '
                'would replace it; move it away or choose another name.'
            )
        more = f' and {len(replaced) - 1} more files' if replaced[1:] else ''
        if os.environ.get('RANK', '0') == '0':  # one of a launcher's processes says it
            print(f'note: {purpose} will replace {replaced[0]}{more}', file=sys.stderr)
    for path in paths:
        _OUTPUTS.update(dict.fromkeys(_identities(path), purpose))
    at_end.callback(_OUTPUTS.clear)
    at_end.callback(_REFUSALS.clear)


def check_no_folder(path: str | Path, *, purpose: str) -> None:
    """Raises ``UserError`` when what is to be a file is a folder."""
    if os.path.isdir(path):
        raise UserError(f'{purpose} {path} is a folder; give the name of a file.')


def check_writable_file(
    path: str | Path,
    *,
    purpose: str,
    suffixes: Collection[str] = (),
    beside: str | Path | None = None,
) -> None:
    """Prove that a tool can write a file, making its folder if need be, and claim it.

    Args:
        path: Where it is to be written.
        purpose: As in '--out', for the message.
        suffixes: How its name may end, in upper or lower case; by default anyhow.
        beside: As in :func:`claim_outputs`.

    Raises:
        UserError: it is a folder, has another suffix, its folder cannot be written to,
            or as in :func:`claim_outputs`.
    """
    check_no_folder(path, purpose=purpose)
    if suffixes and Path(path).suffix.lower() not in suffixes:
        raise UserError(f'{purpose} {path} must end in {" or ".join(suffixes)}.')
    check_writable_dir(Path(path).parent, purpose=f'folder of {purpose}')
    claim_outputs(purpose, path, beside=beside)


def check_json_path(path: str | Path | None) -> None:
    """Raises ``UserError`` if a file is given and figures cannot be written to it."""
    if path is not None:
        check_writable_file(path, purpose='--json')


def write_json(path: str | Path | None, data: dict | list) -> None:
    """Write figures to a file, whole or not at all; None: to no file."""
    if path is not None:
        write_atomically(path, (json.dumps(data, indent=2) + '\n').encode())
