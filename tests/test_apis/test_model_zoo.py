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
    cfg = Config(
        dict(
            model=dict(
                type='STMixer', sizes=(1, -2.5), parts=[dict(b=None), {'1.x': True}]
            ),
            custom_imports=dict(imports=['stmixer_mm', 'antigravity']),
        )
    )
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
    with pytest.raises(UserError, match='is damaged or of another version'):
        check_shipped(shipped._replace(checkpoint=damaged))
    with pytest.raises(UserError, match='does not exist; install'):
        check_shipped(shipped._replace(checkpoint=tmp_path / 'none.safetensors'))
    with pytest.raises(UserError, match='need a config'):
        resolve_model(None, damaged)


def test_weights_in_half_precision_keep_values_and_classes(tmp_path):
    weights = {'a.weight': torch.rand(3, 2), 'a.num_batches_tracked': torch.tensor(7)}
    meta = dict(dataset_meta=dict(classes=('run', 'sit')))
    torch.save(dict(state_dict=weights, meta=meta), tmp_path / 'x.pth')
    write_weights([tmp_path / 'x.pth'], tmp_path / 'x.safetensors')
    checkpoint = load_checkpoint_file(tmp_path / 'x.safetensors')
    assert checkpoint['meta'] == meta
    assert [*checkpoint['state_dict']] == ['a.weight']
    expected = weights['a.weight'].half().float()
    torch.testing.assert_close(
        checkpoint['state_dict']['a.weight'], expected, rtol=0, atol=0
    )
    other = dict(state_dict={name: value + 2 for name, value in weights.items()})
    torch.save(other, tmp_path / 'y.pth')
    write_weights([tmp_path / 'y.pth', tmp_path / 'x.pth'], tmp_path / 'x.safetensors')
    mean = load_checkpoint_file(tmp_path / 'x.safetensors')['state_dict']['a.weight']
    torch.testing.assert_close(mean, weights['a.weight'] + 1, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match=r'y\.pth does not name its actions'):
        write_weights([tmp_path / 'y.pth'], tmp_path / 'y.safetensors')
    empty = weights | {'b.weight': torch.ones(1, device='meta')}
    torch.save(dict(state_dict=empty, meta=meta), tmp_path / 'y.pth')
    with pytest.raises(UserError, match=r'y\.pth.* cannot be averaged'):
        write_weights([tmp_path / 'y.pth'], tmp_path / 'y.safetensors')
    (tmp_path / 'x.safetensors').write_bytes(b'no weights')
    with pytest.raises(UserError, match=r'x\.safetensors cannot be read'):
        load_checkpoint_file(tmp_path / 'x.safetensors')


@pytest.mark.parametrize(
    ('cfg', 'named'),
    [
        (
            "model = dict(type='os.system', command='touch x')",
            r"model.type='os.system'",
        ),
        ("model = dict(a=[dict(type='subprocess.run')])", r'model.a\[0\].type='),
        ("model = dict(type='mmdet.models.dense_heads.ATSSHead')", 'model.type='),
        ("model = dict(type='timm/hf-hub:a/b')", 'model.type='),
        ("model = dict(type='STMixer', _scope_='antigravity')", 'model._scope_='),
    ],
)
def test_a_config_in_a_checkpoint_names_only_what_is_registered(tmp_path, cfg, named):
    with pytest.raises(UserError, match=rf'x\.pth\.{named}.*is not registered'):
        config_in(save(tmp_path / 'x.pth', cfg))
