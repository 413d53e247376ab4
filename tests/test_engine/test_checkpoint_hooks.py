import errno
import itertools
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from stmixer_mm.engine.hooks import SafeCheckpointHook
from stmixer_mm.errors import UserError

RUN = itertools.count()


@MODELS.register_module()
class HookTestModel(BaseModel):
    def __init__(self, width=1):
        super().__init__()
        self.linear = nn.Linear(2, width)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        outputs = self.linear(torch.stack(inputs))
        return dict(loss=outputs.square().mean()) if mode == 'loss' else [outputs]


@DATASETS.register_module()
class HookTestData(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.full((2,), float(index)))


@METRICS.register_module()
class RisingScore(BaseMetric):
    """A score that grows with each evaluation, so that each is the best."""

    score = 0.0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.score += 1
        return {'mAP/overall': self.score}


def make_runner(work_dir, *, epochs=3, width=1, checkpoint=None, **kwargs):
    loader = dict(
        dataset=dict(type='HookTestData'),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=2,
    )
    cfg = dict(
        model=dict(type='HookTestModel', width=width),
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        val_cfg=dict(),
        val_evaluator=dict(type='RisingScore'),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        default_hooks=dict(
            checkpoint=dict(type='SafeCheckpointHook', interval=1, **checkpoint or {}),
            check_checkpoint=dict(type='CheckCheckpointHook', allow=[]),
        ),
        default_scope='mmaction',
        experiment_name=f'hooks_{next(RUN)}',
        log_level='ERROR',
        randomness=dict(seed=0),
    )
    cfg.update(kwargs)
    return Runner(cfg=Config(dict(model=cfg['model'])), **cfg)


def files(work_dir):
    found = (path.name for path in work_dir.iterdir() if path.is_file())
    return sorted(name for name in found if not name.endswith('.py'))


def test_keeps_the_newest_and_the_best(tmp_path):
    make_runner(
        tmp_path, checkpoint=dict(max_keep_ckpts=2, save_best='mAP/overall')
    ).train()
    assert files(tmp_path) == [
        'best_mAP_overall_epoch_3.pth',
        'epoch_2.pth',
        'epoch_3.pth',
        'last_checkpoint',
    ]
    last = Path(tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'epoch_3.pth')
    hub = torch.load(last)['message_hub']['runtime_info']
    assert hub['keep_ckpt_ids'] == [2, 3]
    assert hub['best_ckpt'] == str(tmp_path / 'best_mAP_overall_epoch_3.pth')


def disk_that_fills_up_after(writes, monkeypatch):
    sync = os.fsync

    def fsync(descriptor):
        nonlocal writes
        writes -= 1
        if writes < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, 'fsync', fsync)


# An epoch writes: its checkpoint, last_checkpoint, the best one, and both again.
@pytest.mark.parametrize('writes', [5, 6, 7, 8, 9])
def test_full_disk_leaves_what_was_there(tmp_path, monkeypatch, writes):
    runner = make_runner(
        tmp_path, checkpoint=dict(max_keep_ckpts=1, save_best='mAP/overall')
    )
    disk_that_fills_up_after(writes, monkeypatch)
    with pytest.raises(UserError, match=r'^Checkpoint .*No space left.*--resume'):
        runner.train()

    found = files(tmp_path)
    assert not [name for name in found if 'part' in name]
    assert any(name.startswith('best_') for name in found)
    last = (tmp_path / 'last_checkpoint').read_text()
    for name in [Path(last).name, *(name for name in found if name.endswith('.pth'))]:
        assert 'state_dict' in torch.load(tmp_path / name)
    best = torch.load(last)['message_hub']['runtime_info'].get('best_ckpt')
    assert best is None or Path(best).is_file()


def test_older_ones_go_only_after_the_newer_one_is_there(tmp_path, monkeypatch):
    runner = make_runner(tmp_path, checkpoint=dict(max_keep_ckpts=1))
    seen = []
    save = runner.save_checkpoint

    def watch(*args, **kwargs):
        seen.append([name for name in files(tmp_path) if name.endswith('.pth')])
        save(*args, **kwargs)

    monkeypatch.setattr(runner, 'save_checkpoint', watch)
    runner.train()
    assert seen == [[], ['epoch_1.pth'], ['epoch_2.pth']]
    assert 'epoch_2.pth' not in files(tmp_path)


def test_what_a_killed_run_was_writing_goes_at_the_next_start(tmp_path):
    for name in ('.stmixer_mm-a1.part.pth', '.stmixer_mm-b2.part', 'notes.pth'):
        (tmp_path / name).write_bytes(b'half')
    make_runner(tmp_path, epochs=1).train()
    assert files(tmp_path) == ['epoch_1.pth', 'last_checkpoint', 'notes.pth']


def test_unknown_option_is_refused():
    with pytest.raises(UserError, match='has no argument max_keep_ckpt;'):
        SafeCheckpointHook(interval=1, max_keep_ckpt=2)


def trained_state(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason='it needs a GPU')


@pytest.mark.parametrize(
    'optim_wrapper',
    [
        'OptimWrapper',
        'BFloat16OptimWrapper',
        pytest.param('AmpOptimWrapper', marks=GPU),
    ],
)
def test_resumed_training_ends_where_an_unbroken_one_does(tmp_path, optim_wrapper):
    wrapper = dict(type=optim_wrapper, optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    unbroken = make_runner(tmp_path / 'a', epochs=4, optim_wrapper=wrapper)
    unbroken.train()

    make_runner(tmp_path / 'b', epochs=2, optim_wrapper=wrapper).train()
    resumed = make_runner(tmp_path / 'b', epochs=4, optim_wrapper=wrapper, resume=True)
    resumed.train()
    assert resumed.epoch == 4
    torch.testing.assert_close(trained_state(resumed), trained_state(unbroken))
    hubs = [torch.load(tmp_path / name / 'epoch_4.pth')['message_hub'] for name in 'ab']
    losses = [hub['log_scalars']['train/loss']._log_history[-1] for hub in hubs]
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize('resume', [True, False])
@pytest.mark.parametrize('plain', [True, False])
def test_checkpoint_of_another_model_is_refused(tmp_path, resume, plain):
    make_runner(tmp_path, epochs=1, width=2).train()
    path = tmp_path / 'epoch_1.pth'
    if plain and not resume:
        torch.save(torch.load(path)['state_dict'], path)
    with pytest.raises(ValueError, match=r'epoch_1\.pth does not fit') as error:
        make_runner(tmp_path, resume=resume, load_from=str(path)).train()
    assert 'linear.weight (checkpoint 2x2, model 1x2)' in str(error.value)


def test_weights_under_model_are_loaded(tmp_path):
    saved = make_runner(tmp_path).model.state_dict()
    saved['linear.bias'] += 1
    torch.save(dict(model=saved), tmp_path / 'x.pth')
    runner = make_runner(tmp_path, load_from=str(tmp_path / 'x.pth'))
    runner.load_or_resume()
    assert torch.equal(runner.model.linear.bias, saved['linear.bias'])


def test_allowed_differences_pass_for_fine_tuning(tmp_path):
    make_runner(tmp_path, epochs=1, width=2).train()
    runner = make_runner(
        tmp_path,
        load_from=str(tmp_path / 'epoch_1.pth'),
        default_hooks=dict(
            check_checkpoint=dict(type='CheckCheckpointHook', allow='^linear')
        ),
    )
    before = trained_state(runner)
    runner.load_or_resume()
    assert torch.equal(before['linear.bias'], runner.model.linear.bias)


def test_averaged_weights_resume(tmp_path):
    ema = [dict(type='EMAHook')]
    make_runner(tmp_path, epochs=1, custom_hooks=ema).train()
    runner = make_runner(tmp_path, epochs=2, custom_hooks=ema, resume=True)
    runner.train()
    assert runner.epoch == 2
