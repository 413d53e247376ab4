"""Released checkpoints of any size, and the models of the release."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny import build_detector
from tiny_release import BACKBONES, SIZES, make_parts, released_state_dict

from stmixer_mm.errors import UserError
from stmixer_mm.files import sha256_of
from stmixer_mm.projects.release.models import (
    ReleasedModel,
    fetch_released,
    list_fitting,
    list_released,
)
from stmixer_mm.projects.release.names import convert_state_dict
from stmixer_mm.registry import MODELS


@pytest.fixture(scope='module')
def slowonly():
    return released_state_dict('slowonly')


@pytest.mark.parametrize('backbone', BACKBONES)
def test_every_backbone_is_found(backbone):
    state = released_state_dict(backbone)
    # As after data-parallel training.
    converted, parts = convert_state_dict({f'module.{k}': v for k, v in state.items()})
    for part, config in make_parts(backbone, SIZES).items():
        prefix = f'{part}.'
        names = [name for name in converted if name.startswith(prefix)]
        weights = {name.removeprefix(prefix): converted[name] for name in names}
        MODELS.build(parts[part]).load_state_dict(weights)
        for key, value in config.items():
            if key != 'type':
                assert parts[part][key] == value or tuple(value) == parts[part][key]


@pytest.mark.parametrize(
    'sizes',
    [
        dict(num_queries=1, num_stages=1, num_classes=2),
        dict(num_points=1),
        dict(out_multiplier=1),
        dict(num_groups=1),
        dict(num_groups=6, num_points=9),
        dict(num_frames=1),
        dict(embed_dims=32, num_groups=8, num_points=4, out_multiplier=3),
    ],
    ids=str,
)
def test_sizes_are_read_off(sizes):
    _, parts = convert_state_dict(released_state_dict('slowonly', **sizes))
    decoder_sizes = {name: parts['decoder'][name] for name in SIZES}
    assert decoder_sizes == {**SIZES, **sizes}


def test_faults_are_listed(slowonly):
    missing = 'backbone.s3.pathway0_res1.branch2.b_bn.running_var'
    name = 'stm_head.decoder_stages.1.fc_action.bias'
    broken = {**slowonly, 'stm_head.extra': torch.zeros(1), name: torch.zeros(9)}
    del broken[missing]
    with pytest.raises(ValueError, match='left over: stm_head') as error:
        convert_state_dict(broken)
    for fault in (missing, f'{name} (9,) instead of (5,)'):
        assert fault in str(error.value)
    size = 'lateral_convs.2.weight'  # which tells one
    with pytest.raises(ValueError, match=f'missing: {size}'):
        convert_state_dict({key: slowonly[key] for key in slowonly if key != size})
    with pytest.raises(ValueError, match='not a SlowOnly, SlowFast or ViT'):
        convert_state_dict(build_detector().state_dict())


@pytest.fixture
def drive(monkeypatch, tmp_path):
    """Content of a download (``data``), and its requests (``calls``)."""
    pytest.importorskip('gdown')
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
    sizes = {name: SIZES[name] for name in SIZES if name != 'num_classes'}
    parts = dict(decoder=dict(type='STMixerDecoder', **sizes))
    parts['backbone'] = dict(type='mmaction.ResNet3dSlowOnly', depth=50)
    parts['neck'] = dict(type='ChannelProjection3D')
    config = folder / 'stmixer_tiny.py'
    config.write_text(f'model = {parts}')
    model = ReleasedModel('tiny', config, 'https://drive.google.com/uc?id=x')
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
    line = f'{sha256_of(checkpoint)}  {checkpoint.name}\n'
    assert checkpoint.with_suffix('.sha256').read_text() == line
    assert len(list(checkpoint.parent.iterdir())) == 2


def test_a_wrong_file_is_not_kept(drive, released):
    name = 'stmixer_slowonly-r50_ava22'
    for data, model, fault in (
        (b'<html>Quota exceeded</html>', released.model, 'cannot be read'),
        (released.data[:-1000], released.model, 'cannot be read'),
        (released.data, list_released()[name], f'no checkpoint of {name} but of none'),
    ):
        drive.data = data
        with pytest.raises(UserError, match=fault):
            fetch_released(model)
        assert list(model.checkpoint.parent.iterdir()) == []


def test_the_models_of_the_release_fit_their_own_parts():
    models = list_released()
    assert models['stmixer-m_ava22'] == models['stmixer_slowonly-r50_ava22']
    assert len({*models.values()}) == 5
    for model in {*models.values()}:
        parts = Config.fromfile(model.config).model
        parts = {part: parts[part] for part in ('backbone', 'neck', 'decoder')}
        fitting = [candidate.name for candidate in list_fitting(parts)]
        assert model.name in fitting and len(fitting) == 1 + ('vit' in model.name)
