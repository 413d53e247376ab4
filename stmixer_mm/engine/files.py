"""Files that are whole or not there: written under another name, then renamed."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

ATOMIC_BACKEND = 'stmixer_mm_atomic'


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


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one step that survives a kill or a full disk."""
    with atomic_path(path) as part, open(part, 'wb') as file:
        file.write(data)
        file.flush()
        # Some file systems notice only here that there is no room.
        os.fsync(file.fileno())


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

    Raises:
        OSError: naming the folder, its ``purpose`` (as in 'work dir') and the remedy.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permission bits say nothing to root or on a read-only file system.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'.')
            file.flush()
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = 'a file of that name is in the way'
        raise OSError(
            f'The {purpose} {folder} cannot be written to ({reason}); '
            f'choose another one or make it writable.'
        ) from error


def check_json_path(path: str | Path | None) -> None:
    """Raises ``OSError`` when the figures could not be written there."""
    if path is not None:
        check_writable_dir(Path(path).parent, purpose='folder of --json')


def write_json(path: str | Path | None, data: dict | list) -> None:
    """Write figures to a file, whole or not at all, if there is to be one."""
    if path is not None:
        write_atomically(path, (json.dumps(data, indent=2) + '\n').encode())
