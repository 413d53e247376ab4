import errno
import os
import signal

import pytest
from mmengine.fileio import get_file_backend

from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.files import (
    ATOMIC_BACKEND,
    atomic_path,
    check_file,
    check_writable_dir,
    check_writable_file,
    write_atomically,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_when_the_block_succeeds(tmp_path):
    target = tmp_path / 'a.mp4'
    with atomic_path(target) as part:
        part.write_text('new')
        assert part.suffix == '.mp4'  # writers choose the container by it
        assert not target.exists()
    assert target.read_text() == 'new'
    assert names(tmp_path) == ['a.mp4']


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_earlier_content_survives_an_error(tmp_path, error):
    target = tmp_path / 'a.txt'
    target.write_text('old')
    with pytest.raises(error), atomic_path(target) as part:
        part.write_text('half')
        raise error
    assert target.read_text() == 'old'
    assert names(tmp_path) == ['a.txt']


def test_backend_survives_a_full_disk(tmp_path, monkeypatch):
    backend = get_file_backend(backend_args=dict(backend=ATOMIC_BACKEND))
    target = tmp_path / 'deep' / 'a.txt'
    backend.put_text('old', target)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        backend.put(b'new', target)
    assert target.read_text() == 'old'
    assert names(target.parent) == ['a.txt']


def test_earlier_content_survives_a_kill(tmp_path, monkeypatch):
    """The next write replaces what the killed process left."""
    target = tmp_path / 'a.bin'
    write_atomically(target, b'old')
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(
            os, 'fsync', lambda fd: os.kill(os.getpid(), signal.SIGKILL)
        )
        write_atomically(target, b'new' * 1000)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert target.read_bytes() == b'old'
    write_atomically(target, b'newer')
    assert names(tmp_path) == ['a.bin']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_tool_leaves_no_partial_file(tmp_path, number):
    child = os.fork()
    if child == 0:
        signal.signal(number, signal.SIG_DFL)  # also under nohup
        try:
            with user_errors(), atomic_path(tmp_path / 'a.bin') as part:
                part.write_bytes(b'half')
                os.kill(os.getpid(), number)
                signal.pause()
        except SystemExit as leave:
            os._exit(leave.code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + number
    assert names(tmp_path) == []


@pytest.mark.parametrize('below', ['', 'deeper'])
def test_folder_is_made_unless_a_file_is_in_the_way(tmp_path, below):
    check_writable_dir(tmp_path / 'new' / 'work_dir', purpose='work dir')
    assert names(tmp_path / 'new' / 'work_dir') == []
    (tmp_path / 'taken').touch()
    with pytest.raises(UserError):
        check_writable_dir(tmp_path / 'taken' / below, purpose='work dir')


def test_paths_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.csv').mkdir()
    for path in '.', 'b.txt', 'a.csv', '/dev/null/a/b.csv':
        with pytest.raises(UserError):
            check_writable_file(path, purpose='--out', suffixes=('.csv', '.json'))
    check_writable_file('new/B.CSV', purpose='--out', suffixes=('.csv', '.json'))
    check_writable_file('new/c', purpose='--out')
    assert names(tmp_path / 'new') == []


def test_an_output_is_no_other_argument_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'in.csv').touch()
    (tmp_path / 'link.csv').symlink_to('in.csv')
    (tmp_path / 'folder').symlink_to('.')
    (tmp_path / 'hard.csv').hardlink_to(tmp_path / 'in.csv')
    for out in 'in.csv', './in.csv', 'link.csv', 'folder/in.csv', 'hard.csv':
        for option in ['--out', out], [f'--out={out}']:
            monkeypatch.setattr('sys.argv', ['tool', 'in.csv', *option])
            with pytest.raises(UserError):
                check_writable_file(tmp_path / out, purpose='--out')
    monkeypatch.setattr('sys.argv', ['tool', 'in.csv', '--out', './out.csv'])
    check_writable_file('out.csv', purpose='--out')


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / 'a.csv').touch()
    os.mkfifo(tmp_path / 'pipe')
    check_file(tmp_path / 'a.csv')
    for name in 'none.csv', '', 'a.csv/b.csv', 'n' * 300, 'pipe':
        with pytest.raises(UserError):
            check_file(tmp_path / name)

    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr('builtins.open', refuse)  # root may read any file
    with pytest.raises(UserError):
        check_file(tmp_path / 'a.csv')
