import errno
import os

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from stmixer_mm.datasets.transforms import OpenVideo
from stmixer_mm.errors import UserError, blame, explain, user_errors


@pytest.mark.parametrize(
    'error', [ValueError('bug'), KeyError('x'), OSError('no number'), AssertionError()]
)
def test_what_is_not_a_user_error_is_a_bug(error, capsys):
    assert explain(error) is None
    with pytest.raises(type(error)), user_errors():
        raise error
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    ('error', 'sentence'),
    [
        (UserError('The sky is green; paint it.'), '^The sky is green; paint it.$'),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/some/file'),
            r'^Cannot read or write /some/file \(No space left on device\); make room',
        ),
        (
            torch.cuda.OutOfMemoryError('Tried to allocate 2 GiB. GPU 0 has …'),
            r'\(Tried to allocate 2 GiB\); lower train_dataloader.batch_size',
        ),
    ],
)
def test_user_errors_are_printed_and_end_the_program(error, sentence, capsys):
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(explain(error))
    with pytest.raises(SystemExit) as leave, user_errors():
        raise error
    assert leave.value.code == 1
    assert capsys.readouterr().err == f'error: {explain(error)}\n'


def test_switch_shows_the_traceback_of_user_errors(monkeypatch):
    monkeypatch.setenv('STMIXER_MM_TRACEBACK', '1')
    with pytest.raises(UserError), user_errors():
        raise UserError('The sky is green.')


def test_interruption_has_no_traceback(capsys):
    with pytest.raises(SystemExit) as leave, user_errors():
        raise KeyboardInterrupt
    assert leave.value.code == 130
    assert 'interrupted' in capsys.readouterr().err


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


class Videos(Dataset):
    def __init__(self, is_users):
        self.is_users = is_users

    def __len__(self):
        return 1

    def __getitem__(self, index):
        if self.is_users:
            return OpenVideo().transform(dict(filename='absent.mp4'))
        raise FileNotFoundError('bug')


@pytest.mark.parametrize('is_users', [True, False])
def test_user_errors_of_loader_workers_arrive_as_such(is_users):
    loader = DataLoader(Videos(is_users), num_workers=1, multiprocessing_context='fork')
    with pytest.raises(Exception, match='absent' if is_users else 'bug') as caught:
        next(iter(loader))
    sentence = explain(caught.value)
    if is_users:
        assert sentence.startswith('absent.mp4 does not exist')
        assert '\n' not in sentence
    else:
        assert sentence is None
