"""Models by name: of the release, of this package, and those in a checkpoint."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import DefaultScope
from tiny_release import SIZES, released_state_dict

from stmixer_mm.apis import model_zoo
from stmixer_mm.apis.conversion import write_weights
from stmixer_mm.apis.model_zoo import (
    check_shipped,
    config_in,
    fetch_released,
    list_fitting,
    list_released,
    list_shipped,
    resolve_model,
)
from stmixer_mm.engine.checkpoints import load_checkpoint_file
from stmixer_mm.errors import UserError

pytest.importorskip('gdown')


@pytest.fixture
def drive(monkeypatch, tmp_path):
    """Content of a download (``data``), and its requests (``calls``)."""
    drive = SimpleNamespace(data=b'', calls=0)

    def download(url, file, **options):
        drive.calls += 1
        Path(file).write_bytes(drive.data)

    monkeypatch.setattr('gdown.download', download)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return drive


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    """A made-up checkpoint of the release, and a model that has a config for it."""
    folder = tmp_path_factory.mktemp('released')
    with DefaultScope.overwrite_default_scope('mmaction'):
        torch.save(dict(model=released_state_dict('slowonly')), folder / 'x.pth')
    sizes = dict(SIZES)
    del sizes['num_classes']
    config = folder / 'stmixer_tiny.py'
    config.write_text(
        f'model = dict(decoder=dict(type="STMixerDecoder", **{sizes}),\n'
        'backbone=dict(type="mmaction.ResNet3dSlowOnly", depth=50),\n'
        'neck=dict(type="ChannelProjection3D"))'
    )
    model = model_zoo.ReleasedModel('tiny', config, 'https://drive.google.com/uc?id=x')
    return SimpleNamespace(data=(folder / 'x.pth').read_bytes(), model=model)


def full_disk(file):
    raise OSError(errno.ENOSPC, 'No space left on device')


def test_weights_are_fetched_once_and_converted(drive, released, monkeypatch):
    """A full disk does not lose the download."""
    drive.data = released.data
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space'):
        patch.setattr('os.fsync', full_disk)
        fetch_released(released.model)
    (download,) = released.model.checkpoint.parent.iterdir()
    assert download.read_bytes() == released.data
    checkpoint = fetch_released(released.model)
    assert checkpoint == released.model.checkpoint == fetch_released(released.model)
    assert drive.calls == 1
    assert 'decoder.stages.1.offsets.bias' in torch.load(checkpoint)['state_dict']
    digest = checkpoint.with_suffix('.sha256').read_text()
    assert digest.endswith(f'  {checkpoint.name}\n')
    assert len(list(checkpoint.parent.iterdir())) == 2


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        ('cut', 'cannot be read'),
        ('no checkpoint', 'cannot be read'),
        ('of another model', 'no checkpoint of stmixer_slowonly-r50_ava22 but of none'),
    ],
)
def test_a_wrong_file_is_not_kept(drive, released, wrong, said):
    drive.data = dict(cut=released.data[:-1000]).get(wrong, released.data)
    if wrong == 'no checkpoint':
        drive.data = b'<html>Quota exceeded</html>'
    model = released.model
    if wrong == 'of another model':
        model = list_released()['stmixer_slowonly-r50_ava22']
    with pytest.raises(UserError, match=said):
        fetch_released(model)
    assert list(model.checkpoint.parent.iterdir()) == []


def test_the_models_of_the_release_fit_their_own_parts():
    models = list_released()
    assert models['stmixer-m_ava22'] == models['stmixer_slowonly-r50_ava22']
    models = set(models.values())
    assert len(models) == 5
    for model in models:
        named = model_zoo.Config.fromfile(model.config).model
        parts = {part: named[part] for part in ('backbone', 'neck', 'decoder')}
        fitting = [candidate.name for candidate in list_fitting(parts)]
        assert model.name in fitting and len(fitting) == 1 + ('vit' in model.name)


def save(path, cfg):
    torch.save(dict(state_dict=dict(w=torch.zeros(1)), meta=dict(cfg=cfg)), path)
    return path


def test_a_checkpoint_has_its_config_in_it(tmp_path):
    cfg = model_zoo.Config(
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
    shipped = list_shipped()[model_zoo.DEFAULT_MODEL]
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
