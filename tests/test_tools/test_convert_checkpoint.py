import torch
from run_tool import run_tool
from tiny_release import released_state_dict


class Pool:
    """An object of the release's training, whose class nobody else has."""

    def __reduce__(self):
        return exec, ('raise RuntimeError("code of the checkpoint runs")',)


def test_a_checkpoint_of_training_is_converted_without_its_objects(tmp_path, capsys):
    content = dict(model=released_state_dict('vit'), person_pool=Pool())
    torch.save(content, tmp_path / 'src.pth')
    run_tool('convert_checkpoint', tmp_path / 'src.pth', tmp_path / 'dst.pth')
    converted = torch.load(tmp_path / 'dst.pth')['state_dict']
    assert 'decoder.stages.1.offsets.bias' in converted
    assert '"num_stages": 2' in capsys.readouterr().out
