import pytest
import torch
from mmaction.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner
from run_tool import free_port
from tiny_stmixer import write_project

from stmixer_mm.apis.config import load_config
from stmixer_mm.apis.running import build_runner
from stmixer_mm.engine.optim import BFloat16OptimWrapper
from stmixer_mm.errors import UserError

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason='about machines without a GPU'
)


@pytest.fixture
def cfg(tmp_path):
    cfg = load_config(write_project(tmp_path))
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


def test_mixed_precision_on_a_cpu_needs_no_loss_scale(cfg):
    cfg.optim_wrapper.update(
        type='AmpOptimWrapper',
        loss_scale='dynamic',
        dtype='float16',
        clip_grad=dict(max_norm=3.0),
    )
    runner = build_runner(cfg)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert type(wrapper) is BFloat16OptimWrapper
    assert wrapper.clip_grad_kwargs == dict(max_norm=3.0)


@pytest.fixture
def one_process(monkeypatch):
    """The environment of a launcher of one process."""
    variables = dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, MASTER_PORT=free_port())
    for name, value in dict(variables, MASTER_ADDR='127.0.0.1').items():
        monkeypatch.setenv(name, str(value))
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_processes_on_a_cpu_talk_through_gloo(cfg, one_process):
    set_device = torch.cuda.set_device
    cfg.launcher, cfg.model_wrapper_cfg = 'pytorch', dict(find_unused_parameters=True)
    model = build_runner(cfg).model
    assert torch.distributed.get_backend() == 'gloo'
    assert type(model).__name__ == 'MMDistributedDataParallel'
    assert model.device_ids is None and model.find_unused_parameters
    assert torch.cuda.set_device is set_device


@RUNNERS.register_module()
class OwnRunner(Runner):
    pass


@pytest.mark.parametrize('runner', [OwnRunner, FlexibleRunner])
def test_runner_of_another_type_is_built(cfg, runner):
    cfg.runner_type = runner.__name__
    assert type(build_runner(cfg)) is runner


def test_a_checkpoint_that_cannot_be_resumed_from_is_named(cfg, tmp_path):
    runner = build_runner(cfg)
    torch.save(dict(state_dict=runner.model.state_dict()), tmp_path / 'x.pth')
    with pytest.raises(UserError, match=r'x\.pth cannot be resumed'):
        runner.resume(str(tmp_path / 'x.pth'))
