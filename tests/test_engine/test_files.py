"""Files appear whole or not at all."""

import os
import signal

import pytest

from stmixer_mm import files
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.files import atomic_path, lock_folder, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_succeeds(tmp_path):
    target = tmp_path / 'a.mp4'
    with atomic_path(target) as part:
        part.write_text('old')
        assert part.suffix == '.mp4'  # writers choose the container by it
        assert not target.exists()
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as part:
        part.write_text('half')
        raise KeyboardInterrupt
    assert target.read_text() == 'old'
    assert names(tmp_path) == ['a.mp4']


def test_earlier_content_survives_a_kill(tmp_path, monkeypatch):
    """The next write replaces what the killed process left."""
    target = tmp_path / 'a.bin'
    write_atomically(target, b'old')
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, 'fsync', lambda _: os.kill(os.getpid(), signal.SIGKILL))
        write_atomically(target, b'new' * 1000)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert target.read_bytes() == b'old'
    target.chmod(0o640)
    write_atomically(target, b'newer')
    assert target.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ['a.bin']


def test_writers_of_one_file_do_not_mix(tmp_path, monkeypatch):
    """And a link with the name of a temporary file is not followed."""
    target, other = tmp_path / 'a.bin', tmp_path / 'other'
    other.write_text('of others')
    with atomic_path(target) as first, atomic_path(target) as second:
        first.write_text('first')
        second.write_text('second')
    monkeypatch.setattr(files, 'token_hex', lambda count: '0' * 8)
    (tmp_path / f'.part-{"0" * 8}-a.bin').symlink_to(other)
    with pytest.raises(FileExistsError):
        write_atomically(target, b'third')
    assert other.read_text() == 'of others' and target.read_text() == 'first'


def test_a_folder_is_shared_by_those_that_share_it(tmp_path):
    """Not by this process, which has another share, and one that has all."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        lock_folder(tmp_path, purpose='detection', shared=True)
        os.write(writer, b'.')
        signal.pause()
    os.read(reader, 1)
    lock_folder(tmp_path, purpose='detection', shared=True)
    with pytest.raises(UserError, match='Another detection is running'):
        lock_folder(tmp_path, purpose='detection')
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lock_folder(tmp_path, purpose='detection')


def test_a_stopped_tool_leaves_no_partial_file(tmp_path):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also under nohup
        try:
            with user_errors(), atomic_path(tmp_path / 'a.bin') as part:
                part.write_bytes(b'half')
                os.kill(os.getpid(), signal.SIGHUP)
                signal.pause()
        except SystemExit as leave:
            os._exit(leave.code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
    assert names(tmp_path) == []
