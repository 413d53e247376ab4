import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from tiny_release import released_state_dict

TOOL = Path(__file__).parents[2] / 'tools' / 'convert_checkpoint.py'


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['convert_checkpoint.py', *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


@pytest.fixture(scope='module')
def released():
    with DefaultScope.overwrite_default_scope('mmaction'):
        return released_state_dict('vit')


@pytest.mark.parametrize('wrap', [dict, lambda state: dict(model=state, iteration=3)])
def test_plain_or_under_model(released, wrap, tmp_path, monkeypatch, capsys):
    torch.save(wrap(released), tmp_path / 'src.pth')
    run(monkeypatch, tmp_path / 'src.pth', tmp_path / 'dst.pth')
    converted = torch.load(tmp_path / 'dst.pth')['state_dict']
    assert 'decoder.stages.1.offsets.bias' in converted
    assert '"num_stages": 2' in capsys.readouterr().out


def test_nothing_is_written_on_failure(released, tmp_path, monkeypatch, capsys):
    broken = {**released, 'stm_head.extra': torch.zeros(1)}
    torch.save(broken, tmp_path / 'src.pth')
    (tmp_path / 'dst.pth').write_bytes(b'earlier')
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, tmp_path / 'src.pth', tmp_path / 'dst.pth')
    assert stop.value.code == 1
    assert 'left over: stm_head.extra' in capsys.readouterr().err
    assert (tmp_path / 'dst.pth').read_bytes() == b'earlier'
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_file(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path / 'none.pth', tmp_path / 'dst.pth')
    assert 'none.pth does not exist' in capsys.readouterr().err


def test_python_objects_need_trust(released, tmp_path, monkeypatch, capsys):
    torch.save(dict(model=released, cfg=Path('x')), tmp_path / 'src.pth')
    arguments = (tmp_path / 'src.pth', tmp_path / 'dst.pth')
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    assert 'could run code' in capsys.readouterr().err
    run(monkeypatch, *arguments, '--trust')
    assert (tmp_path / 'dst.pth').exists()
