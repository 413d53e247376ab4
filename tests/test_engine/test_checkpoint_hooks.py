import errno
import itertools
import os
import random
import shutil
import signal
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import LogProcessor, Runner
from torch import nn
from torch.testing import assert_close
from torch.utils.data import Dataset

from stmixer_mm.compat import find_latest_checkpoint
from stmixer_mm.engine.checkpoints import load_checkpoint_file
from stmixer_mm.engine.log_processor import StageLogProcessor
from stmixer_mm.errors import UserError
from stmixer_mm.files import lock_folder

RUN = itertools.count()
BEST = dict(save_best='mAP/overall', max_keep_ckpts=1)
BEST_OF_3 = 'best_mAP_overall_epoch_3.pth'


@MODELS.register_module()
class HookTestModel(BaseModel):
    def __init__(self, width=1):
        super().__init__()
        self.linear = nn.Linear(2, width)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        outputs = self.linear(torch.stack(inputs))
        if self.training:
            outputs = outputs + torch.rand_like(outputs)
        return dict(loss=outputs.square().mean()) if mode == 'loss' else [outputs]


@DATASETS.register_module()
class HookTestData(Dataset):
    """With augmentation, from all that make random numbers."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(2)
        return dict(inputs=index + 0.1 * noise)


@HOOKS.register_module()
class BreakOff(Hook):
    """End a training after some iterations, as a kill does."""

    priority = 'LOWEST'

    def __init__(self, iterations):
        self.iterations = iterations

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iterations:
            raise KeyboardInterrupt


@METRICS.register_module()
class RisingScore(BaseMetric):
    """A score that grows with each evaluation, so that each is the best."""

    score = 0.0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.score += 1
        return {'mAP/overall': self.score}


def loader(*, sampler='DefaultSampler', **kwargs):
    cfg = dict(dataset=dict(type='HookTestData'), sampler=dict(type=sampler))
    return dict(train_dataloader=dict(batch_size=2, **cfg) | kwargs)


def sgd(wrapper='OptimWrapper', **kwargs):
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9)
    return dict(optim_wrapper=dict(type=wrapper, optimizer=optimizer, **kwargs))


def make_runner(work_dir, *, epochs=3, width=1, checkpoint=None, **kwargs):
    cfg = dict(
        model=dict(type='HookTestModel', width=width),
        work_dir=str(work_dir),
        **loader(),
        val_dataloader=loader()['train_dataloader'],
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        val_cfg=dict(),
        val_evaluator=dict(type='RisingScore'),
        **sgd(),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        default_hooks=dict(
            checkpoint=dict(type='SafeCheckpointHook', interval=1) | (checkpoint or {}),
            check_checkpoint=dict(type='CheckCheckpointHook', allow=[]),
            exact_resume=dict(type='ExactResumeHook'),
        ),
        default_scope='mmaction',
        experiment_name=f'hooks_{next(RUN)}',
        log_level='ERROR',
        randomness=dict(seed=0),
    )
    cfg |= kwargs
    return Runner(cfg=Config(dict(model=cfg['model'])), **cfg)


def files(work_dir):
    names = (path.name for path in work_dir.iterdir() if path.is_file())
    return sorted(name for name in names if not name.endswith(('.py', '.lock')))


def test_keeps_the_newest_and_the_best(tmp_path):
    for name in ('.part-0123abcd-epoch_1.pth', 'notes.pth'):
        (tmp_path / name).write_bytes(b'left by a killed run, or by the user')
    make_runner(tmp_path, checkpoint=BEST | dict(max_keep_ckpts=2)).train()
    checkpoints = [BEST_OF_3, 'epoch_2.pth', 'epoch_3.pth', 'last_checkpoint']
    assert files(tmp_path) == [*checkpoints, 'notes.pth']
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'epoch_3.pth')
    hub = torch.load(last)['message_hub']['runtime_info']
    assert hub['keep_ckpt_ids'] == [2, 3]
    assert hub['best_ckpt'] == str(tmp_path / BEST_OF_3)


# An epoch writes its checkpoint, last_checkpoint, the best one, and the first two again.
@pytest.mark.parametrize('writes', [5, 7, 8])
def test_full_disk_leaves_what_was_there(tmp_path, monkeypatch, writes):
    runner = make_runner(tmp_path, checkpoint=BEST)
    sync, room = os.fsync, iter(range(writes))

    def fsync(descriptor):
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(UserError, match='No space left'):
        runner.train()
    names = files(tmp_path)
    assert not [name for name in names if 'part' in name]
    assert any(name.startswith('best_') for name in names)
    last = (tmp_path / 'last_checkpoint').read_text()
    for name in [Path(last).name, *(name for name in names if name.endswith('.pth'))]:
        assert 'state_dict' in torch.load(tmp_path / name)
    best = torch.load(last)['message_hub']['runtime_info'].get('best_ckpt')
    assert best is None or Path(best).is_file()


def train(runner):
    try:
        runner.train()
    finally:
        # Workers end at once, instead of 5 s after they are collected.
        runner.train_dataloader._iterator = runner.train_loop.dataloader_iterator = None


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason='it needs a GPU')
ADAMW = dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1, fused=True)))
BY_ITER = dict(by_epoch=False, interval=2)
ITER_LOOP = dict(
    train_cfg=dict(type='IterBasedTrainLoop', max_iters=12, val_interval=3),
    checkpoint=BY_ITER,
)


@pytest.mark.parametrize(
    'kwargs',
    [
        sgd(),
        pytest.param(sgd('AmpOptimWrapper'), marks=GPU),
        sgd(accumulative_counts=4),
        dict(randomness=dict(seed=None)),
        dict(custom_hooks=[dict(type='EMAHook')]),
        dict(checkpoint=BY_ITER),  # in the middle of an epoch
        ITER_LOOP | loader(sampler='InfiniteSampler'),
        ITER_LOOP | loader(num_workers=1, persistent_workers=True),
    ],
)
def test_resumed_training_ends_where_an_unbroken_one_does(
    tmp_path, monkeypatch, kwargs
):
    # Before an IterBasedTrainLoop begins with its loader again, it sleeps for 2 s.
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    kwargs = dict(epochs=4) | kwargs
    hooks = [*kwargs.get('custom_hooks', ()), dict(type='BreakOff', iterations=8)]
    broken = make_runner(tmp_path / 'b', **kwargs | dict(custom_hooks=hooks))
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    seed = dict(randomness=dict(seed=broken.seed))
    unbroken = make_runner(tmp_path / 'a', **kwargs | seed)
    train(unbroken)
    resumed = make_runner(tmp_path / 'b', **kwargs, resume=True)
    train(resumed)
    assert resumed.iter == unbroken.iter == 12
    notes = [(tmp_path / name / 'last_checkpoint').read_text() for name in 'ab']
    ours, expected = map(torch.load, notes)
    for part in ('state_dict', 'optimizer'):
        assert_close(ours[part], expected[part], rtol=0, atol=0)
    assert ours['param_schedulers'] == expected['param_schedulers']


def test_workers_and_batches_do_not_change_what_a_sample_is(tmp_path):
    samples = []
    for workers, batch_size in ((0, 1), (0, 3), (2, 2)):
        cfg = loader(num_workers=workers, batch_size=batch_size)
        runner = make_runner(tmp_path / str(len(samples)), epochs=2, **cfg)
        runner.train()
        runner.call_hook('before_train_epoch')
        inputs = [
            value for batch in runner.train_dataloader for value in batch['inputs']
        ]
        samples.append(torch.stack(inputs))
    assert torch.equal(samples[0], samples[1]) and torch.equal(samples[0], samples[2])
    assert len(samples[0].unique()) == 12


def test_killed_training_resumes_from_wherever_it_was(tmp_path):
    start = time.monotonic()
    unbroken = make_runner(tmp_path / 'a', epochs=8)
    unbroken.train()
    seconds = time.monotonic() - start
    child = os.fork()
    if not child:
        make_runner(tmp_path / 'b', epochs=8).train()
        os._exit(0)
    time.sleep(random.SystemRandom().uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    resumed = make_runner(tmp_path / 'b', epochs=8, resume=True)
    resumed.train()
    weights = resumed.model.state_dict(), unbroken.model.state_dict()
    assert_close(*weights, rtol=0, atol=0)


def test_a_folder_is_trained_in_by_one_process(tmp_path):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        lock_folder(tmp_path, purpose='training')
        os.write(writer, b'.')
        signal.pause()
    os.read(reader, 1)
    with pytest.raises(UserError, match='running'):
        make_runner(tmp_path).train()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def contents(folder):
    return {file: file.read_bytes() for file in folder.glob('*.pth')}


@pytest.mark.parametrize('resume', [True, False])
def test_checkpoints_of_another_run_are_refused(tmp_path, resume):
    make_runner(tmp_path / 'a', epochs=1, checkpoint=BEST).train()
    make_runner(tmp_path / 'b', epochs=1, checkpoint=BEST).train()
    original = contents(tmp_path / 'a')
    other = str(tmp_path / 'b' / 'epoch_1.pth') if resume else None
    options = dict(resume=resume, load_from=other)
    with pytest.raises(UserError, match='epoch_1'):
        make_runner(tmp_path / 'a', checkpoint=BEST, **options).train()
    assert contents(tmp_path / 'a') == original


def test_copied_run_goes_on_without_touching_the_other(tmp_path):
    make_runner(tmp_path / 'a', epochs=1, checkpoint=BEST).train()
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    original = contents(tmp_path / 'a')
    make_runner(tmp_path / 'b', epochs=3, checkpoint=BEST, resume=True).train()
    assert contents(tmp_path / 'a') == original
    assert files(tmp_path / 'b') == [BEST_OF_3, 'epoch_3.pth', 'last_checkpoint']


def test_a_run_killed_before_its_first_note_is_resumed(tmp_path):
    assert find_latest_checkpoint(tmp_path) is None  # nothing to resume from
    for name in ('epoch_1.pth', 'epoch_2.pth', 'epoch_10.pth', 'best_epoch_20.pth'):
        (tmp_path / name).touch()
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_10.pth')
    with pytest.raises(UserError, match='epoch_2'):  # the one before it
        load_checkpoint_file(tmp_path / 'epoch_10.pth')


@pytest.mark.parametrize(
    'changes, part, values',
    [
        (sgd(), 'state', {}),
        (dict(width=2), 'state', {}),
        ({}, 'state', dict(exp_avg=torch.zeros(1))),
        ({}, 'param_groups', dict(params=[0])),
    ],
    ids=['optimizer', 'model', 'altered state', 'altered parameters'],
)
def test_a_checkpoint_that_does_not_fit_is_not_resumed(tmp_path, changes, part, values):
    make_runner(tmp_path, epochs=1, **ADAMW).train()
    checkpoint = torch.load(tmp_path / 'epoch_1.pth')
    checkpoint['optimizer'][part][0].update(values)
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    with pytest.raises(UserError, match=r'epoch_1\.pth'):
        make_runner(tmp_path, resume=True, **ADAMW | changes).train()


def test_a_run_may_be_shorter_than_its_warm_up(tmp_path):
    schedules = [
        dict(type='LinearLR', start_factor=0.1, end=1),
        dict(type='CosineAnnealingLR', begin=1),
    ]
    runner = make_runner(tmp_path, epochs=1, param_scheduler=schedules)
    runner.train()
    (scheduler,) = runner.param_schedulers
    assert type(scheduler).__name__ == 'LinearLR'


def test_log_lines_have_a_sum_for_each_earlier_stage(monkeypatch):
    terms = {'d0.loss_a': 1.0, 'd0.loss_b': 2.0, 'loss_a': 4.0}
    line = 'Epoch [1]  ' + '  '.join(f'{name}: {terms[name]:.4f}' for name in terms)
    monkeypatch.setattr(LogProcessor, 'get_log_after_iter', lambda *_: (terms, line))
    log = StageLogProcessor().get_log_after_iter(None, 0, 'train')
    assert log == (terms, 'Epoch [1]  loss_a: 4.0000  d0: 3.0000')


def test_a_fine_tune_says_what_it_started_from(tmp_path):
    make_runner(tmp_path / 'first', epochs=1).train()
    weights = tmp_path / 'first' / 'epoch_1.pth'
    digest = sha256(weights.read_bytes()).hexdigest()
    started = dict(checkpoint=str(weights), sha256=digest)
    make_runner(tmp_path / 'second', epochs=1, load_from=str(weights)).train()
    make_runner(tmp_path / 'second', epochs=2, resume=True).train()
    for name in ('epoch_1', 'epoch_2'):
        checkpoint = load_checkpoint_file(tmp_path / 'second' / f'{name}.pth')
        assert checkpoint['meta']['started_from'] == started
