import errno
import os
import resource
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
    part_folder,
    ram_for,
    remove_parts,
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


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_tool_leaves_nothing_half_written(tmp_path, number):
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


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    target = tmp_path / 'a.txt'
    with atomic_path(target) as one, atomic_path(target) as other:
        one.write_text('one')
        other.write_text('other')
    assert target.read_text() == 'one'  # the last that is whole
    assert names(tmp_path) == ['a.txt']


@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_what_is_being_written_is_not_cleared_away(tmp_path, kind):
    def writing():
        return (
            part_folder(tmp_path) if kind == 'folder' else atomic_path(tmp_path / 'a')
        )

    child = os.fork()
    if child == 0:
        with writing() as part:
            if kind == 'folder':
                (part / 'half').touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (dead,) = names(tmp_path)
    with writing() as part:
        assert names(tmp_path) == sorted([dead, part.name])
        remove_parts(tmp_path)
        assert names(tmp_path) == [part.name]


@pytest.fixture
def tool():
    """The door of a tool; what its files are to be is forgotten when it ends."""
    with user_errors():
        yield


def link(path, kind):
    linked = path.with_name(f'linked{path.suffix}')
    {'same': lambda: None, 'symbolic': lambda: linked.symlink_to(path.name)}.get(
        kind, lambda: linked.hardlink_to(path)
    )()
    return path if kind == 'same' else linked


@pytest.mark.parametrize('kind', ['same', 'symbolic', 'hard'])
@pytest.mark.parametrize('is_swallowed', [False, True])
def test_an_input_is_not_written(tmp_path, tool, capsys, kind, is_swallowed):
    source = tmp_path / 'a.csv'
    source.write_text('mine')
    out = link(source, kind)
    check_writable_file(out, purpose='--out')
    assert capsys.readouterr().err == f'note: --out will replace {out}\n'
    words = f'^{source} is read, and --out would replace it; give --out another name.$'
    with pytest.raises(UserError, match=words):
        check_file(source)
    # Where all faults are collected, the tool goes on.
    with pytest.raises(UserError, match=words):
        write_atomically(out, b'gone')
    assert source.read_text() == 'mine'


def test_what_an_output_has_replaced_is_no_output(tmp_path, tool, capsys, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    (tmp_path / 'a.csv').write_text('old')
    other = link(tmp_path / 'a.csv', 'hard')
    check_writable_file(tmp_path / 'a.csv', purpose='--out')
    assert not capsys.readouterr().err  # process 0 says what it replaces
    write_atomically(tmp_path / 'a.csv', b'new')
    check_file(other)
    assert other.read_text() == 'old'


@pytest.mark.parametrize('kind', ['same', 'symbolic', 'hard'])
@pytest.mark.parametrize('exists', [True, False])
def test_two_outputs_are_two_files(tmp_path, tool, kind, exists):
    path = tmp_path / 'a.csv'
    if exists or kind != 'same':
        path.write_text('')
    check_writable_file(path, purpose='--json')
    with pytest.raises(
        UserError, match=r'^--csv .*csv is the file of --json too; give'
    ):
        check_writable_file(link(path, kind), purpose='--csv')


def test_what_a_tool_has_written_can_be_read_after_it(tmp_path):
    with user_errors():
        check_writable_file(tmp_path / 'a', purpose='--out')
        write_atomically(tmp_path / 'a', b'')
    check_file(tmp_path / 'a')


def test_an_implied_file_replaces_none_of_others(tmp_path, tool, capsys):
    implied, named = tmp_path / 'a.json', tmp_path / 'a.mp4'
    implied.write_text('of somebody')
    with pytest.raises(UserError, match=r'a\.json is there already, without .*a\.mp4'):
        check_writable_file(implied, purpose='--json', beside=named)
    named.write_text('')
    check_writable_file(implied, purpose='--json', beside=named)
    assert capsys.readouterr().err == f'note: --json will replace {implied}\n'


def test_ram_is_bounded_by_the_size_of_a_file():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError), ram_for(10):
        bytearray(2**30)
    with ram_for(2**30):
        bytearray(2**20)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


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
