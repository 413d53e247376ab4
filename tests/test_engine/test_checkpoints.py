import re
import zipfile
from copy import deepcopy
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch
from bad_input import RunsCode
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn
from torch.testing import assert_close

from stmixer_mm.engine.checkpoints import (
    check_state,
    load_checkpoint_file,
    load_weights,
    state_dict_of,
)
from stmixer_mm.errors import UserError


def net():
    parts = dict(stem=nn.Linear(2, 4), norm=nn.BatchNorm1d(4), head=nn.Linear(4, 3))
    return nn.ModuleDict(parts)


@pytest.mark.parametrize(
    'wrap',
    [
        dict,
        lambda state: {'state_dict': state, 'meta': {}},
        lambda state: {'model': state, 'iteration': 3},
        lambda state: {f'module.{name}': value for name, value in state.items()},
    ],
)
def test_a_checkpoint_fits_in_every_form(wrap):
    state = net().state_dict()
    del state['norm.num_batches_tracked']  # old releases lack it
    state = state_dict_of(wrap(state), source='x.pth')
    check_state(nn.DataParallel(net()), state, source='x.pth')


@pytest.mark.parametrize(
    'changes',
    [
        {'extra': torch.ones(1), 'head.weight': torch.ones(5, 4)},
        {'head.weight': None, 'head.bias': None},  # missing
        {'head.weight': torch.full((3, 4), float('inf'))},
        {'head.weight': torch.full((3, 4), 1e300, dtype=float)},
        {'head.weight': torch.full((3, 4), torch.nan).to(torch.float8_e5m2)},
        {'head.weight': 'abc'},
        {'head.weight': torch.ones(3, 4, device='meta')},
        {'head.weight': torch.ones(3, 4, dtype=int)},
    ],
)
def test_parameters_that_do_not_fit_are_named(changes):
    with pytest.raises(UserError) as error:
        check_state(net(), net().state_dict() | changes, source='x.pth')
    assert all(name in str(error.value) for name in changes)
    assert 'stem' not in str(error.value)


@pytest.mark.parametrize('zip_format', [True, False])
def test_damage_ends_in_one_sentence(tmp_path, zip_format):
    """Or changes nothing; without a zip's sums, numbers can change unseen."""
    model, path, random = net(), tmp_path / 'x.pth', Random(0)
    content = {'state_dict': model.state_dict(), 'hub': HistoryBuffer([1.0], [1])}
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    raw = path.read_bytes()
    damaged = [raw[: length * len(raw) // 20] for length in range(20)]
    for _ in range(80):
        place = random.randrange(len(raw))
        mutated = bytes([random.randrange(256)])
        damaged.append(raw[:place] + mutated + raw[place + 1 :])
    saved, refused = deepcopy(model.state_dict()), 0
    for data in raw, *damaged:
        path.write_bytes(data)
        try:
            load_weights(model, path)
            if zip_format or data == raw:
                assert_close(model.state_dict(), saved, rtol=0, atol=0)
        except UserError as error:
            assert str(path) in str(error) and data != raw
            refused += 1
    assert refused >= 20


@pytest.mark.parametrize('is_url', [False, True])
def test_no_checkpoint_runs_code(tmp_path, monkeypatch, is_url):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    torch.save({'state_dict': {}, 'payload': RunsCode()}, cache / 'x.pth')
    path = 'http://x.org/x.pth' if is_url else str(cache / 'x.pth')
    for load in (load_checkpoint_file, partial(load_checkpoint, net())):
        with pytest.raises(UserError, match=r'x\.pth cannot be'):
            load(path)
    assert not Path('made_by_a_pickle').exists()


@pytest.mark.parametrize('core', ['core', '_core'])
def test_arrays_of_every_numpy_are_loaded(tmp_path, core):
    """mmengine's message hub has arrays, whose module numpy 2 renamed."""
    paths = tmp_path / 'a.pth', tmp_path / 'b.pth'
    torch.save(
        {**net().state_dict(), 'hub': HistoryBuffer([1.0, 2.0], [1, 1])}, paths[0]
    )
    module = f'numpy.{core}.multiarray'.encode()
    with zipfile.ZipFile(paths[0]) as old, zipfile.ZipFile(paths[1], 'w') as new:
        for name in old.namelist():
            data = re.sub(rb'numpy\._?core\.multiarray', module, old.read(name))
            new.writestr(name, data)
    loaded = CheckpointLoader.load_checkpoint(str(paths[1]), 'cpu')
    assert loaded['hub'].mean() == 1.5
