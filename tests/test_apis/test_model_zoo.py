"""Models by name: of this package, and those in a checkpoint."""

import pytest
import torch
from mmengine.config import Config

from stmixer_mm.apis.conversion import write_weights
from stmixer_mm.apis.model_zoo import (
    DEFAULT_MODEL,
    check_shipped,
    config_in,
    list_shipped,
    resolve_model,
)
from stmixer_mm.engine.checkpoints import load_checkpoint_file
from stmixer_mm.errors import UserError


def save(path, cfg):
    torch.save(dict(state_dict=dict(w=torch.zeros(1)), meta=dict(cfg=cfg)), path)
    return path


def test_a_checkpoint_has_its_config_in_it(tmp_path):
    parts = [dict(b=None), {'1.x': True}]
    imports = dict(imports=['stmixer_mm', 'antigravity'])
    model = dict(type='STMixer', sizes=(1, -2.5), parts=parts)
    cfg = Config(dict(model=model, custom_imports=imports))
    path = save(tmp_path / 'x.pth', cfg.pretty_text)
    config, weights = resolve_model(path, None)
    assert config.model == cfg.model and weights == path
    assert resolve_model('x.py', path) == ('x.py', path)


@pytest.mark.parametrize(
    'cfg', [None, 'model = open("x", "w")', 'import os', 'a.b = 1', 'filename = 1']
)
def test_a_config_in_a_checkpoint_is_data(tmp_path, cfg):
    with pytest.raises(UserError, match='no readable config in'):
        config_in(save(tmp_path / 'x.pth', cfg))


def test_weights_of_the_package_are_compared_with_their_sum(tmp_path):
    shipped = list_shipped()[DEFAULT_MODEL]
    assert resolve_model(None, None) == (shipped.config, shipped.checkpoint)
    damaged = tmp_path / 'model.safetensors'
    damaged.write_bytes(shipped.checkpoint.read_bytes()[:-1] + b'?')
    for checkpoint in damaged, tmp_path / 'none.safetensors':
        with pytest.raises(UserError, match=checkpoint.name):
            check_shipped(shipped._replace(checkpoint=checkpoint))
    with pytest.raises(UserError, match='need a config'):
        resolve_model(None, damaged)


def test_weights_in_half_precision_keep_values_and_classes(tmp_path):
    first, second, target = (
        tmp_path / name for name in ('x.pth', 'y.pth', 'x.safetensors')
    )
    weights = {'a.weight': torch.rand(3, 2), 'a.num_batches_tracked': torch.tensor(7)}
    meta = dict(dataset_meta=dict(classes=('run', 'sit')))
    torch.save(dict(state_dict=weights, meta=meta), first)
    write_weights([first], target)
    checkpoint = load_checkpoint_file(target)
    assert checkpoint['meta'] == meta
    expected = {'a.weight': weights['a.weight'].half().float()}
    torch.testing.assert_close(checkpoint['state_dict'], expected, rtol=0, atol=0)
    higher = {name: value + 2 for name, value in weights.items()}
    torch.save(dict(state_dict=higher), second)
    write_weights([second, first], target)
    mean = load_checkpoint_file(target)['state_dict']['a.weight']
    torch.testing.assert_close(mean, weights['a.weight'] + 1, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match=r'y\.pth does not name its actions'):
        write_weights([second], target)
    empty = weights | {'b.weight': torch.ones(1, device='meta')}
    torch.save(dict(state_dict=empty, meta=meta), second)
    with pytest.raises(UserError, match=r'y\.pth.* cannot be averaged'):
        write_weights([second], target)
    target.write_bytes(b'no weights')
    with pytest.raises(UserError, match=r'x\.safetensors cannot be read'):
        load_checkpoint_file(target)


@pytest.mark.parametrize(
    ('model', 'named'),
    [
        ("type='os.system', command='touch x'", "type='os.system'"),
        ("a=[dict(type='subprocess.run')]", r'a\[0\].type='),
        ("type='mmdet.models.dense_heads.ATSSHead'", 'type='),
        ("type='timm/hf-hub:a/b'", 'type='),
        ("type='STMixer', _scope_='antigravity'", '_scope_='),
    ],
)
def test_a_config_in_a_checkpoint_names_only_what_is_registered(tmp_path, model, named):
    with pytest.raises(UserError, match=rf'x\.pth\.model\.{named}.*is not registered'):
        config_in(save(tmp_path / 'x.pth', f'model = dict({model})'))
