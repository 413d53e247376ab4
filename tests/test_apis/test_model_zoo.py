"""The release's models by name, from a server that stands in for Google Drive."""

import errno
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import requests
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

PAGE = (
    '<form id="download-form" action="https://drive.usercontent.google.com/download">'
    '<input type="hidden" name="confirm" value="t"></form>'
)


class Drive(BaseHTTPRequestHandler):
    """Google Drive: a page that warns, then the file, from where it is asked for."""

    def __init__(self, files, *args):
        self.files = files
        super().__init__(*args)

    def do_GET(self):
        if self.files.data is None:
            self.rfile.read()  # silent until the other side leaves
        if self.path.startswith('/uc'):
            body, headers, status = PAGE.encode(), {'Content-Type': 'text/html'}, 200
        else:
            start = int((re.findall(r'\d+', self.headers.get('Range', '')) or [0])[0])
            data, status = self.files.data, 206 if start else 200
            headers = {
                'Content-Type': 'application/octet-stream',
                'Content-Disposition': 'attachment; filename="x.pth"',
            }
            if start:
                headers['Content-Range'] = f'bytes {start}-{len(data) - 1}/{len(data)}'
            body = data[start:]
        self.files.asked.append(self.headers.get('Range'))
        self.send_response(status)
        for name, value in {**headers, 'Content-Length': str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: self.files.cut_at])

    def log_message(self, *args):
        pass


@pytest.fixture
def drive(monkeypatch, tmp_path):
    """What the server gives (``data``), up to where (``cut_at``), and was ``asked``."""
    files = SimpleNamespace(data=b'', cut_at=None, asked=[])
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Drive, files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    send = requests.Session.send

    def send_here(self, request, **kwargs):
        request.url = re.sub(
            r'https://[\w.]+', f'http://127.0.0.1:{server.server_port}', request.url
        )
        return send(self, request, **kwargs)

    monkeypatch.setattr(requests.Session, 'send', send_here)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('HOME', str(tmp_path))
    yield files
    server.shutdown()


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
    """A download that was cut off continues, and a full disk does not lose it."""
    drive.data, drive.cut_at = released.data, len(released.data) // 2
    with pytest.raises(UserError, match=re.escape(released.model.url)):
        fetch_released(released.model)
    drive.cut_at = None
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space'):
        patch.setattr('os.fsync', full_disk)
        fetch_released(released.model)
    assert any(drive.asked)  # for the rest of the file
    asked = len(drive.asked)
    (download,) = released.model.checkpoint.parent.iterdir()
    assert download.read_bytes() == released.data
    kept = fetch_released(released.model)
    assert kept == released.model.checkpoint == fetch_released(released.model)
    assert len(drive.asked) == asked
    assert 'decoder.stages.1.offsets.bias' in torch.load(kept)['state_dict']
    assert kept.with_suffix('.sha256').read_text().endswith(f'  {kept.name}\n')
    assert len(list(kept.parent.iterdir())) == 2


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
        fitting = [each.name for each in list_fitting(parts)]
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
    found, weights = resolve_model(path, None)
    assert found.model == cfg.model and weights == path
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
