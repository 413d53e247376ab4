import io
import os
import pickle
import zipfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from random import Random
from urllib.error import URLError

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from stmixer_mm.engine.checkpoints import (
    check_checkpoint_file,
    check_state,
    load_checkpoint_file,
    load_weights,
    state_dict_of,
)
from stmixer_mm.errors import UserError


class Net(nn.Module):
    def __init__(self, width=3, extra=False):
        super().__init__()
        self.stem = nn.Linear(2, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, width)
        if extra:
            self.extra = nn.Linear(1, 1)


def fit(model, state, allow=()):
    check_state(model, state, source='x.pth', allow=allow)


def test_own_state_fits_even_without_batch_counters():
    state = Net().state_dict()
    fit(Net(), state)
    del state['norm.num_batches_tracked']
    fit(nn.DataParallel(Net()), state)


@pytest.mark.parametrize(
    ('model', 'saved', 'lists'),
    [
        (
            Net(width=3),
            Net(width=5, extra=True),
            '  left over: extra.weight, extra.bias\n  of another shape: head.weight '
            '(checkpoint 5x4, model 3x4), head.bias (checkpoint 5, model 3)',
        ),
        (Net(extra=True), Net(), '  missing: extra.weight, extra.bias'),
        (
            nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(12))),
            nn.Linear(1, 1, bias=False),
            f'  missing: {", ".join(f"{index}.weight" for index in range(10))}\n'
            '  left over: weight',
        ),
    ],
)
def test_differences_are_counted_and_listed(model, saved, lists):
    with pytest.raises(UserError, match=r'^Checkpoint x\.pth does not fit') as error:
        fit(model, saved.state_dict())
    sentence, _, names = str(error.value).partition('\n')
    assert type(model).__name__ in sentence
    assert names == lists
    assert ('12 missing, 1 left over, 0 of another shape' in sentence) == (
        '9.weight' in lists
    )


@pytest.mark.parametrize(
    ('allow', 'fits'),
    [(['^head'], True), (['weight$'], False), (['weight$', 'bias$'], True)],
)
def test_allowed_parameters_may_differ(allow, fits):
    with nullcontext() if fits else pytest.raises(UserError):
        fit(Net(width=3), Net(width=5).state_dict(), allow)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda net: net.state_dict(),
        lambda net: {'state_dict': net.state_dict(), 'meta': {}},
        lambda net: {'model': net.state_dict(), 'iteration': 3},
        lambda net: nn.DataParallel(net).state_dict(),
    ],
)
def test_every_form_of_a_checkpoint_gives_the_same_names(wrap):
    net = Net()
    assert state_dict_of(wrap(net), source='x.pth').keys() == net.state_dict().keys()


BAD = {
    'not finite': lambda value: value.fill_(float('inf')),
    'text': lambda value: 'abc',
    'no values': lambda value: value.to('meta'),
    'whole numbers': lambda value: value.int(),
    'sparse': lambda value: value.to_sparse(),
}


@pytest.mark.parametrize('fault', BAD)
def test_parameters_that_cannot_be_right_are_refused(fault):
    state = Net().state_dict()
    state['head.weight'] = BAD[fault](state['head.weight'])
    with pytest.raises(
        UserError, match=r'^Checkpoint x\.pth is damaged, .* 1 parameters are not fin'
    ) as error:
        fit(Net(), state)
    assert str(error.value).endswith('\n  head.weight')


def test_names_that_are_no_text_are_refused():
    with pytest.raises(UserError, match=r'^Checkpoint x\.pth has .* the name 3, which'):
        state_dict_of({**Net().state_dict(), 3: torch.zeros(1)}, source='x.pth')


@pytest.mark.parametrize('content', [[1, 2], {'epoch': 3}, {'state_dict': {}}])
def test_file_without_parameters_is_refused(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth holds no parameters'):
        load_checkpoint_file(tmp_path / 'x.pth')


@pytest.mark.parametrize('zip_format', [True, False])
def test_loading_gives_back_what_was_saved(tmp_path, zip_format):
    net, path = Net(), tmp_path / 'x.pth'
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zip_format)
    loaded = load_checkpoint_file(path)['state_dict']
    assert loaded.keys() == net.state_dict().keys()
    assert torch.equal(loaded['head.weight'], net.head.weight)


WHOLE = io.BytesIO()
torch.save(Net().state_dict(), WHOLE)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'does not exist'),
        (b'', 'give a whole PyTorch checkpoint'),
        (WHOLE.getvalue()[:999], 'give a whole PyTorch checkpoint'),
        (b'hello', 'it is not a PyTorch checkpoint, or'),
        (b'<html>404</html>', 'it is not a PyTorch checkpoint, or'),
        (pickle.dumps({'a': 1}), 'it is not a PyTorch checkpoint, or'),
        (pickle.dumps({'a': 1}, protocol=2), 'give a whole PyTorch checkpoint'),
    ],
    ids=['absent', 'empty', 'cut', 'text', 'html', 'pickle', 'older pickle'],
)
def test_what_is_not_a_checkpoint_is_named(tmp_path, content, message):
    path = tmp_path / 'x.pth'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        UserError, match=rf'^Checkpoint {path} .*{message}.*\.$'
    ) as error:
        load_checkpoint_file(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('zip_format', [True, False])
def test_damage_ends_in_one_sentence(tmp_path, zip_format):
    """Or is not to be seen, as in the numbers themselves."""
    whole, path, random = io.BytesIO(), tmp_path / 'x.pth', Random(0)
    content = {'state_dict': Net().state_dict(), 'hub': HistoryBuffer([1.0], [1])}
    torch.save(content, whole, _use_new_zipfile_serialization=zip_format)
    whole = whole.getvalue()
    damaged = [whole[: length * len(whole) // 20] for length in range(20)]
    for _ in range(80):
        place = random.randrange(len(whole))
        mutated = bytes([random.randrange(256)])
        damaged.append(whole[:place] + mutated + whole[place + 1 :])
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            load_weights(Net(), path)
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused >= 20


def test_a_url_without_network_ends_in_one_sentence(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError('Name or service not known')

    monkeypatch.setattr('torch.hub.download_url_to_file', refuse)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(
        UserError,
        match=rf'^https://x\.org/a/b\.pth\?c=1 cannot be fetched .*not known.*put it at '
        rf'{tmp_path}/hub/checkpoints/b\.pth, or .* model\.init_cfg\.checkpoint=FILE\.$',
    ):
        load_checkpoint(Net(), 'https://x.org/a/b.pth?c=1')


@pytest.mark.parametrize(
    ('path', 'words'),
    [
        ('foo://a.pth', r'foo://a\.pth does not exist; give .* or a URL with https'),
        ('open-mmlab://none', r"there is no model 'none'; correct its name"),
    ],
)
def test_what_no_scheme_knows_is_named(path, words):
    with pytest.raises(UserError, match=f'^Checkpoint .*{words}'):
        load_checkpoint_file(path)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=f'{tmp_path} is a folder'):
        load_checkpoint_file(tmp_path)


@pytest.mark.parametrize('url', ['https://x.org/a.pth', 'open-mmlab://x', 's3://b/a'])
def test_urls_are_left_to_the_loader(url):
    check_checkpoint_file(url)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ('hacked',)


@pytest.mark.parametrize('url', [False, True])
def test_no_checkpoint_runs_code(tmp_path, monkeypatch, url):
    """Not even where torch's own protection is off, and whoever loads it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    torch.save({'state_dict': {}, 'payload': RunsCode()}, cache / 'x.pth')
    path = 'http://x.org/x.pth' if url else str(cache / 'x.pth')
    for load in (load_checkpoint_file, partial(load_checkpoint, Net())):
        with pytest.raises(UserError, match=r'x\.pth cannot be read.* could run code'):
            load(path)
    assert not Path('hacked').exists()


@pytest.mark.parametrize('core', ['core', '_core'])
def test_arrays_of_every_numpy_are_loaded(tmp_path, core):
    """mmengine's message hub holds arrays, which numpy 2 names otherwise."""
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save({**Net().state_dict(), 'hub': history}, tmp_path / 'a.pth')
    with (
        zipfile.ZipFile(tmp_path / 'a.pth') as old,
        zipfile.ZipFile(tmp_path / 'b.pth', 'w') as new,
    ):
        for name in old.namelist():
            data = old.read(name)
            for this in (b'_core', b'core'):
                data = data.replace(
                    b'numpy.%s.multiarray' % this, f'numpy.{core}.multiarray'.encode()
                )
            new.writestr(name, data)
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'b.pth'), 'cpu')
    assert loaded['hub'].mean() == 1.5
