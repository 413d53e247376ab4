from pathlib import Path

import torch
from run_tool import run_and_fail, run_tool
from tiny_release import released_state_dict


def test_python_objects_need_trust(tmp_path, capsys):
    content = dict(model=released_state_dict('vit'), cfg=Path('x'))
    torch.save(content, tmp_path / 'src.pth')
    arguments = (tmp_path / 'src.pth', tmp_path / 'dst.pth')
    assert 'Python objects' in run_and_fail(capsys, 'convert_checkpoint', *arguments)
    run_tool('convert_checkpoint', *arguments, '--trust')
    converted = torch.load(tmp_path / 'dst.pth')['state_dict']
    assert 'decoder.stages.1.offsets.bias' in converted
    assert '"num_stages": 2' in capsys.readouterr().out


def test_nothing_is_written_on_failure(tmp_path, capsys):
    broken = {**released_state_dict('vit'), 'stm_head.extra': torch.zeros(1)}
    torch.save(broken, tmp_path / 'src.pth')
    (tmp_path / 'dst.pth').write_bytes(b'earlier')
    args = (tmp_path / 'src.pth', tmp_path / 'dst.pth')
    line = run_and_fail(capsys, 'convert_checkpoint', *args)
    assert 'src.pth: ' in line and 'left over: stm_head.extra' in line
    assert (tmp_path / 'dst.pth').read_bytes() == b'earlier'
    assert len(list(tmp_path.iterdir())) == 2
