import errno
import os
import subprocess
import sys
import tempfile
from unittest.mock import Mock

import pytest
import torch
from torch._utils import ExceptionWrapper

from stmixer_mm.errors import UserError, blame, end_quietly, explain, user_errors


@pytest.mark.parametrize(
    'error', [ValueError('bug'), KeyError('x'), OSError('no number'), AssertionError()]
)
def test_traceback_of_what_is_not_a_user_error_is_in_a_file(
    error, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    assert explain(error) is None
    with pytest.raises(SystemExit, match='1'), user_errors():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    (file,) = tmp_path.iterdir()
    assert line.startswith(f'error: Unforeseen ({type(error).__name__}')
    assert line.endswith(f'report it with its traceback, which is in {file}.')
    assert 'in test_traceback_of_what' in file.read_text()


@pytest.mark.parametrize(
    ('error', 'sentence'),
    [
        (UserError('The sky is green; paint it.'), 'The sky is green; paint it.'),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/some/file'),
            'Cannot read or write /some/file (No space left on device); make room',
        ),
        (
            torch.cuda.OutOfMemoryError('Tried to allocate 2 GiB. GPU 0 has …'),
            'The GPU has too little memory (Tried to allocate 2 GiB); lower ',
        ),
        (MemoryError(), 'There is too little RAM (no more can be had); lower '),
        (
            RuntimeError("Allocator: can't allocate memory: you tried 9 bytes."),
            'There is too little RAM (you tried 9 bytes); lower ',
        ),
    ],
)
def test_user_errors_are_printed_and_end_the_program(
    error, sentence, capsys, monkeypatch
):
    with pytest.raises(SystemExit, match='1'), user_errors():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: {sentence}')
    monkeypatch.setenv('STMIXER_MM_TRACEBACK', '1')
    with pytest.raises(type(error)), user_errors():
        raise error


def test_interruption_has_no_traceback(capsys):
    with pytest.raises(SystemExit, match='130'), user_errors():
        raise KeyboardInterrupt
    assert 'interrupted' in capsys.readouterr().err


def test_interruption_while_the_package_is_imported_has_no_traceback(tmp_path):
    (tmp_path / 'mmaction.py').write_text('raise KeyboardInterrupt')
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, '-c', 'import stmixer_mm'],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert done.stderr == 'stopped: interrupted by the user\n'


def test_what_is_no_interruption_goes_to_the_hook_that_was_there(monkeypatch):
    monkeypatch.setattr(sys, 'excepthook', None)
    hook = Mock()
    end_quietly(hook, ValueError, error := ValueError('bug'), None)
    hook.assert_called_once_with(ValueError, error, None)
    assert sys.excepthook is hook


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (ValueError('two\n  lines.'), 'two lines'),
        (KeyError('x'), "KeyError 'x'"),
        (AssertionError(), 'AssertionError'),
    ],
)
def test_blame_makes_one_sentence_of_any_failure(error, reason):
    with pytest.raises(UserError) as caught, blame('a.csv is broken', 'mend it'):
        raise error
    assert str(caught.value) == f'a.csv is broken ({reason}); mend it.'
    assert caught.value.__cause__ is error


@pytest.mark.parametrize('error', [UserError('as it is'), KeyboardInterrupt()])
def test_blame_leaves_what_needs_no_sentence(error):
    with pytest.raises(type(error)) as caught, blame('a.csv is broken', 'mend it'):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ('error', 'sentence'),
    [(UserError('a.mp4 is gone.'), 'a.mp4 is gone.'), (ValueError('bug'), None)],
)
def test_errors_of_loader_workers_arrive_as_what_they_are(error, sentence):
    try:
        raise error
    except Exception:
        # With the traceback in its message, as a worker's errors are handed on.
        wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
    with pytest.raises(type(error), match=sentence) as caught:
        wrapped.reraise()
    assert explain(caught.value) == sentence
