import errno
import os
import signal

import pytest
from mmengine.fileio import get_file_backend

from stmixer_mm.errors import UserError
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


@pytest.mark.parametrize('below', ['', 'deeper'])
def test_folder_is_made_unless_a_file_is_in_the_way(tmp_path, below):
    check_writable_dir(tmp_path / 'new' / 'work_dir', purpose='work dir')
    assert names(tmp_path / 'new' / 'work_dir') == []
    (tmp_path / 'taken').write_text('')
    with pytest.raises(UserError, match=r'^The work dir .*taken.* cannot be written'):
        check_writable_dir(tmp_path / 'taken' / below, purpose='work dir')


def test_read_only_file_system_is_named(tmp_path, monkeypatch):
    def refuse(**kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr('tempfile.TemporaryFile', refuse)
    with pytest.raises(UserError, match=r'written to \(.*Read-only file system\);'):
        check_writable_dir(tmp_path, purpose='work dir')


@pytest.mark.parametrize(
    ('path', 'words'),
    [
        ('.', r'--out \. is a folder; give the name of a file'),
        ('b.txt', r'--out b\.txt must end in \.csv or \.json\.'),
        ('a.csv', 'a.csv is a folder; give the name of a file'),
        ('/dev/null/a/b.csv', 'folder of --out /dev/null/a cannot be written'),
    ],
)
def test_file_that_cannot_be_written_is_named(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.csv').mkdir()
    with pytest.raises(UserError, match=words):
        check_writable_file(path, purpose='--out', suffixes=('.csv', '.json'))
    check_writable_file('new/B.CSV', purpose='--out', suffixes=('.csv', '.json'))
    check_writable_file('new/c', purpose='--out')
    assert names(tmp_path / 'new') == []


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('none.csv', 'the file does not exist; correct its path'),
        ('', 'the file is a folder; correct its path'),
        ('a.csv/b.csv', 'the file does not exist; correct its path'),
        ('n' * 300, r'the file cannot be read \(File name too long\); make it .*'),
        ('pipe', 'the file is not a regular file; correct its path'),
    ],
)
def test_file_that_is_not_there_is_named(tmp_path, name, words):
    (tmp_path / 'a.csv').write_text('')
    os.mkfifo(tmp_path / 'pipe')
    check_file(tmp_path / 'a.csv')
    with pytest.raises(UserError, match=f'^{tmp_path / name}: {words}.$'):
        check_file(tmp_path / name)


@pytest.mark.parametrize('call', ['builtins.open', 'os.stat'])
def test_file_that_may_not_be_read_is_named(tmp_path, monkeypatch, call):
    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    (tmp_path / 'a.csv').write_text('')
    words = r'a\.csv: the file cannot be read \(Permission denied\); make it'
    with monkeypatch.context() as patch, pytest.raises(UserError, match=words):
        patch.setattr(call, refuse)
        check_file(tmp_path / 'a.csv')
