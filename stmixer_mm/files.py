"""Checks of paths given by users, and writing files whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import socket
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex
from typing import IO

from mmengine.fileio import LocalBackend, register_backend

from stmixer_mm.errors import UserError, blame

_LOCKS: dict[Path, int] = {}  # files, held until this process ends
DOWNLOAD_S = 30.0  # until a silent server is given up
ATOMIC_BACKEND = 'stmixer_mm_atomic'


def package_folder() -> Path:
    """The repository, or where a wheel keeps its configs and tools."""
    package = Path(__file__).resolve().parent
    in_wheel = package / '.mim'
    return in_wheel if in_wheel.is_dir() else package.parent


def check_file(
    path: str | Path, *, subject: str | None = None, remedy: str = 'correct its path'
) -> None:
    """Raise ``UserError`` unless a file exists and can be read.

    The message begins with ``subject``, by default "PATH: the file".
    """
    subject = subject or f'{path}: the file'
    if not os.path.isfile(path):
        what = 'is not a regular file' if os.path.exists(path) else 'does not exist'
        raise UserError(f'{subject} {what}; {remedy}.')
    with blame(f'{subject} cannot be read', 'make it readable or give another file'):
        # Permission bits mean nothing to root or on a network file system.
        open(path, 'rb').close()


@contextmanager
def download_timeout() -> Iterator[None]:
    """Give up on servers that are silent; urllib waits for ever."""
    earlier = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(earlier)


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def check_sums(path: str | Path) -> None:
    """Raise ``BadZipFile`` if a zip file is damaged, as a checkpoint of PyTorch may be.

    PyTorch itself compares no sums, and writes 0 for all of them if told to.
    """
    if not (os.path.isfile(path) and zipfile.is_zipfile(path)):
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.CRC:
                archive.read(entry)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to ``path`` when the block succeeds.

    When the block raises, the temporary file is removed and ``path`` keeps its earlier
    content; its permissions stay. The temporary name is random, so that writers of one
    path cannot mix; what a killed process left is removed by the next write.
    """
    path = Path(path)
    _remove_left_parts(path)
    part = path.with_name(f'.part-{token_hex(4)}-{path.name}')
    mode = path.stat().st_mode if path.is_file() else None
    # Exclusive: a link put there by others is not followed.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    handle = os.open(part, flags, 0o666 if mode is None else 0o600)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield part
        if mode is not None:
            part.chmod(mode & 0o777)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _remove_left_parts(path: Path) -> None:
    """Remove temporary files of a path whose processes were killed: no lock is on them."""
    for part in path.parent.glob(f'.part-{"[0-9a-f]" * 8}-{escape(path.name)}'):
        with suppress(OSError):  # it is in use, or gone
            handle = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(handle)


@contextmanager
def open_atomically(path: str | Path, mode: str = 'w', **kwargs) -> Iterator[IO]:
    """``open`` for a file that appears whole, also after a kill or on a full disk."""
    with atomic_path(path) as part, open(part, mode, **kwargs) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())  # some file systems report a full disk only here


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a binary file in one step."""
    with open_atomically(path, 'wb') as file:
        file.write(data)


def write_json(path: str | Path | None, data: dict | list) -> None:
    """Write a JSON file in one step, or nothing if ``path`` is None."""
    if path is not None:
        write_atomically(path, (json.dumps(data, indent=2) + '\n').encode())


@register_backend(ATOMIC_BACKEND, force=True)
class AtomicLocalBackend(LocalBackend):
    """mmengine's backend for local files, with atomic writes."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, obj)


def check_writable_dir(folder: str | Path, *, purpose: str) -> None:
    """Make a folder if needed; raise ``UserError`` if files cannot be written there.

    ``purpose``, such as 'work dir', is for the message, as in the functions below.
    """
    subject = f'The {purpose} {folder} cannot be written to'
    with blame(subject, 'choose another one or make it writable'):
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Permission bits mean nothing to root or on a read-only file system.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'.')


def lock_folder(folder: str | Path, *, purpose: str, shared: bool = False) -> None:
    """Keep other processes from a folder until this one ends, however it does.

    With ``shared`` only those are kept from it that do not share it.

    Such a lock is not inherited by data loader workers, which may outlive a killed
    process. A file system without locks (some network ones) allows every process.

    Raises:
        UserError: another process has locked it.
    """
    path = Path(folder).resolve() / '.lock'
    _LOCKS[path] = _LOCKS.get(path) or os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.lockf(_LOCKS[path], kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UserError(
                f'Another {purpose} is running in {folder}; wait until it has ended, or '
                'choose another folder.'
            ) from error


def check_writable_file(
    path: str | Path,
    *,
    purpose: str,
    suffixes: Collection[str] = (),
    inputs: Iterable[str | Path] = (),
) -> None:
    """Raise ``UserError`` unless a tool can write a file without losing an input.

    Args:
        path: Output of a tool.
        purpose: Its option, such as '--out'.
        suffixes: Valid suffixes, in lower case; by default any.
        inputs: Files that are read, besides those on the command line.
    """
    if os.path.isdir(path):
        raise UserError(f'{purpose} {path} is a folder; give the name of a file.')
    if suffixes and Path(path).suffix.lower() not in suffixes:
        raise UserError(f'{purpose} {path} must end in {" or ".join(suffixes)}.')
    arguments = [arg.rpartition('=')[2] for arg in sys.argv[1:]]
    same_path = [arg for arg in arguments if _identity(arg) == _identity(path)]
    is_given = os.path.abspath(path) in map(os.path.abspath, same_path)
    check_no_input([path], [*inputs, *same_path[is_given:]], purpose=purpose)
    check_writable_dir(Path(path).parent, purpose=f'folder of {purpose}')


def check_no_input(
    outputs: Iterable[str | Path], inputs: Iterable[str | Path], *, purpose: str
) -> None:
    """Raise ``UserError`` if an output is an input, also by links of any kind."""
    input_ids = {_identity(path) for path in inputs}
    for path in outputs:
        if _identity(path) in input_ids:
            raise UserError(
                f'{purpose} {path} is also an input and would be replaced; choose '
                'another name.'
            )


def _identity(path: str | Path) -> tuple | str:
    """Equal for paths of one file, there or not."""
    with suppress(OSError):
        stat = os.stat(path)
        return stat.st_dev, stat.st_ino
    return os.path.realpath(path)


def begins_with(path: str | Path, head: bytes, *, offset: int = 0) -> bool:
    """True for a regular file with this content, or with a shorter part of it."""
    if not os.path.isfile(path):
        return False
    with open(path, 'rb') as file:
        file.seek(offset)
        content = file.read(len(head))
    return content == head[: len(content)]


def check_own(path: str | Path, head: str, *, offset: int = 0) -> None:
    """Raise ``UserError`` if a path that no user named has a file of something else.

    What this package writes there has ``head`` after ``offset`` bytes.
    """
    if os.path.lexists(path) and not begins_with(path, head.encode(), offset=offset):
        raise UserError(
            f'{path} is there already and was not written by this command; move it, '
            'or choose another place for the results.'
        )


def check_json_path(path: str | Path | None, inputs: Iterable[str | Path] = ()) -> None:
    """Raise ``UserError`` if ``--json`` is given and cannot be written."""
    if path is not None:
        check_writable_file(path, purpose='--json', inputs=inputs)


def cache_folder() -> Path:
    """Folder of fetched files."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path('~/.cache').expanduser()
    return Path(cache, 'stmixer_mm')
