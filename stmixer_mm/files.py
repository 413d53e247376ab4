"""Files that can be read, and files that are whole or not there.

The latter are written under another name, then renamed.
"""

import json
import os
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mmengine.fileio import LocalBackend, register_backend

from stmixer_mm.errors import UserError, blame

ATOMIC_BACKEND = 'stmixer_mm_atomic'


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
        UserError: it is missing, a folder, or may not be read.
    """
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


def part_path(path: str | Path) -> Path:
    """The hidden name beside ``path`` under which it is written."""
    path = Path(path)
    return path.with_name(f'.{path.stem}.part{path.suffix}')


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a name to write to; it becomes ``path`` when the block succeeds.

    When the block raises, what was written is removed and ``path`` keeps its
    earlier content.
    """
    part = part_path(path)
    try:
        yield part
        os.replace(part, path)
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


def check_writable_file(
    path: str | Path, *, purpose: str, suffixes: Collection[str] = ()
) -> None:
    """Prove that a file can be written, making its folder if need be.

    Args:
        path: Where it is to be written.
        purpose: As in '--out', for the message.
        suffixes: How its name may end, in any case; without them, anyhow.

    Raises:
        UserError: it is a folder, has another suffix, or its folder cannot be
            written to.
    """
    if os.path.isdir(path):
        raise UserError(f'{purpose} {path} is a folder; give the name of a file.')
    if suffixes and Path(path).suffix.lower() not in suffixes:
        raise UserError(f'{purpose} {path} must end in {" or ".join(suffixes)}.')
    check_writable_dir(Path(path).parent, purpose=f'folder of {purpose}')


def check_json_path(path: str | Path | None) -> None:
    """Raises ``UserError`` when figures cannot be written to a file, if there is one."""
    if path is not None:
        check_writable_file(path, purpose='--json')


def write_json(path: str | Path | None, data: dict | list) -> None:
    """Write figures to a file, whole or not at all, if there is to be one."""
    if path is not None:
        write_atomically(path, (json.dumps(data, indent=2) + '\n').encode())
