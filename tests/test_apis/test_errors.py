import errno
import tempfile

import pytest
import torch
from torch._utils import ExceptionWrapper

from stmixer_mm.errors import UserError, blame, user_errors


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (UserError('The sky is green; paint it.'), 'The sky is green; paint it.'),
        (OSError(errno.ENOSPC, 'No space left', '/some/file'), '/some/file'),
        (torch.cuda.OutOfMemoryError('Tried to allocate 2 GiB. GPU 0'), '2 GiB'),
        (MemoryError(), 'RAM'),
        (RuntimeError("can't allocate memory: you tried 9 bytes."), '9 bytes'),
        (UserError('A fails (DataLoader worker (pid 7) is killed: Killed.).'), 'RAM'),
    ],
)
def test_user_errors_are_printed_and_end_the_program(error, words, capsys, monkeypatch):
    with pytest.raises(SystemExit, match='1'), user_errors():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and words in line
    monkeypatch.setenv('STMIXER_MM_TRACEBACK', '1')
    with pytest.raises(type(error)), user_errors():
        raise error


@pytest.mark.parametrize('error', [ValueError('two\n  lines.'), AssertionError()])
def test_blame_makes_one_sentence_of_any_failure(error):
    with pytest.raises(UserError) as caught, blame('a.csv is broken', 'mend it'):
        raise error
    assert str(caught.value).startswith('a.csv is broken (')
    assert '\n' not in str(caught.value)
    for failure in (caught.value, KeyboardInterrupt()):  # needs no further sentence
        with pytest.raises(type(failure)) as again, blame('b.csv is broken', 'mend it'):
            raise failure
        assert again.value is failure


def test_the_traceback_of_a_bug_is_in_a_file(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    with pytest.raises(SystemExit, match='1'), user_errors():
        raise KeyError('x')
    (line,) = capsys.readouterr().err.splitlines()
    (file,) = tmp_path.iterdir()
    assert 'KeyError' in line and str(file) in line
    assert 'in test_the_traceback_of' in file.read_text()


def test_errors_of_loader_workers_keep_their_sentence():
    try:
        raise UserError('a.mp4 is gone.')
    except UserError:
        # With the traceback in its message, as a worker's errors are passed on.
        wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
    with pytest.raises(UserError) as caught:
        wrapped.reraise()
    assert str(caught.value) == 'a.mp4 is gone.'


def test_on_a_full_disk_no_other_folder_is_asked_for():
    full = pytest.raises(UserError, match='make room')
    with full, blame('x', 'choose another folder'), open('/dev/full', 'w') as file:
        file.write('x')
