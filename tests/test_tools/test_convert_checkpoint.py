import pytest
import torch
from mmengine.registry import DefaultScope
from run_tool import run_and_fail, run_tool
from tiny_release import released_state_dict


@pytest.fixture(scope='module')
def released():
    with DefaultScope.overwrite_default_scope('mmaction'):
        return released_state_dict('vit')


@pytest.mark.parametrize('wrap', [dict, lambda state: dict(model=state, iteration=3)])
def test_plain_or_under_model(released, wrap, tmp_path, capsys):
    torch.save(wrap(released), tmp_path / 'src.pth')
    run_tool('convert_checkpoint', tmp_path / 'src.pth', tmp_path / 'dst.pth')
    converted = torch.load(tmp_path / 'dst.pth')['state_dict']
    assert 'decoder.stages.1.offsets.bias' in converted
    assert '"num_stages": 2' in capsys.readouterr().out


def test_nothing_is_written_on_failure(released, tmp_path, capsys):
    broken = {**released, 'stm_head.extra': torch.zeros(1)}
    torch.save(broken, tmp_path / 'src.pth')
    (tmp_path / 'dst.pth').write_bytes(b'earlier')
    args = (tmp_path / 'src.pth', tmp_path / 'dst.pth')
    line = run_and_fail(capsys, 'convert_checkpoint', *args)
    assert 'src.pth: ' in line and 'left over: stm_head.extra' in line
    assert (tmp_path / 'dst.pth').read_bytes() == b'earlier'
    assert len(list(tmp_path.iterdir())) == 2


class Pool:
    """An object of the release's training, whose class nobody else has."""

    def __reduce__(self):
        return exec, ('raise RuntimeError("code of the checkpoint runs")',)


def test_python_objects_are_not_built(released, tmp_path):
    torch.save(dict(model=released, person_pool=Pool()), tmp_path / 'src.pth')
    run_tool('convert_checkpoint', tmp_path / 'src.pth', tmp_path / 'dst.pth')
    assert (tmp_path / 'dst.pth').exists()
