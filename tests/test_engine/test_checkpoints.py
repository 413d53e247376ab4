import os
import zipfile
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from stmixer_mm.engine.checkpoints import (
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


def fit(model, state):
    check_state(model, state, source='x.pth')


def test_own_state_fits_even_without_batch_counters():
    state = Net().state_dict()
    fit(Net(), state)
    del state['norm.num_batches_tracked']
    fit(nn.DataParallel(Net()), state)


@pytest.mark.parametrize(
    ('model', 'saved', 'names'),
    [
        (Net(), Net(width=5, extra=True), ['extra.bias', 'head.weight']),
        (Net(extra=True), Net(), ['extra.weight, extra.bias']),
    ],
)
def test_differing_parameters_are_named(model, saved, names):
    with pytest.raises(UserError) as error:
        fit(model, saved.state_dict())
    assert all(name in str(error.value) for name in names)
    assert 'stem' not in str(error.value)


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


@pytest.mark.parametrize(
    'spoil',
    [
        lambda value: value.fill_(float('inf')),
        lambda value: 'abc',
        lambda value: value.to('meta'),
        lambda value: value.int(),
    ],
)
def test_parameters_that_cannot_be_right_are_refused(spoil):
    state = Net().state_dict()
    state['head.weight'] = spoil(state['head.weight'])
    with pytest.raises(UserError, match=r'head\.weight'):
        fit(Net(), state)


@pytest.mark.parametrize('zip_format', [True, False])
def test_damage_ends_in_one_sentence(tmp_path, zip_format):
    """Or is invisible, as in the numbers themselves."""
    net, path, random = Net(), tmp_path / 'x.pth', Random(0)
    content = {'state_dict': net.state_dict(), 'hub': HistoryBuffer([1.0], [1])}
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    loaded = load_checkpoint_file(path)['state_dict']
    torch.testing.assert_close(loaded, dict(net.state_dict()), rtol=0, atol=0)
    whole = path.read_bytes()
    damaged = [whole[: length * len(whole) // 20] for length in range(20)]
    for _ in range(80):
        place = random.randrange(len(whole))
        mutated = bytes([random.randrange(256)])
        damaged.append(whole[:place] + mutated + whole[place + 1 :])
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            load_weights(net, path)
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused >= 20


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ('hacked',)


@pytest.mark.parametrize('is_url', [False, True])
def test_no_checkpoint_runs_code(tmp_path, monkeypatch, is_url):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    torch.save({'state_dict': {}, 'payload': RunsCode()}, cache / 'x.pth')
    path = 'http://x.org/x.pth' if is_url else str(cache / 'x.pth')
    for load in (load_checkpoint_file, partial(load_checkpoint, Net())):
        with pytest.raises(UserError, match=r'x\.pth cannot be'):
            load(path)
    assert not Path('hacked').exists()


@pytest.mark.parametrize('core', ['core', '_core'])
def test_arrays_of_every_numpy_are_loaded(tmp_path, core):
    """mmengine's message hub has arrays, whose module numpy 2 renamed."""
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
