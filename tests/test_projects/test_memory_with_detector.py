"""Laws of a memory that learns together with its detector."""

from collections import OrderedDict
from functools import partial

import pytest
import test_memory
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from run_tool import run_and_fail, run_tool
from test_memory import DETECTION, build, rewrite

from stmixer_mm.apis.config import load_config
from stmixer_mm.errors import UserError
from stmixer_mm.registry import DATASETS, MODELS

project = test_memory.project
CONFIG = """
_base_ = './memory.py'
model = dict(with_detector=True, head=dict(score_thr=0.0))
banks = dict(with_clips=True)
train_dataloader = val_dataloader = test_dataloader = dict(dataset=banks)
optim_wrapper = dict(optimizer=dict(lr=0.01))
"""


@pytest.fixture(scope='module')
def both(project):
    """The same folder with the config of both."""
    (project / 'both.py').write_text(CONFIG)
    return project


@pytest.fixture(autouse=True)
def fresh_logger(monkeypatch):
    """Runs of one second share a name, and so a logger."""
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())


def build_both(folder, **settings):
    """A new memory beside the detector of the banks, and a batch of two clips."""
    config = load_config(folder / 'both.py')
    config.merge_from_dict(dict(model=settings))
    model = MODELS.build(config.model)
    model.load_state_dict(torch.load(folder / 'tiny.pth'), strict=False)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    batch = pseudo_collate([dataset[0], dataset[1]])
    return model, model.data_preprocessor(batch, training=True)


def test_a_new_memory_changes_no_loss(both):
    model, batch = build_both(both)
    losses = model.loss(**batch)
    assert losses['memory.loss_action'] == losses['loss_action'] > 0
    plain, batch = build_both(both, type='STMixer', with_detector=None)
    expected = plain.loss(**batch)
    assert expected.keys() == losses.keys() - {'memory.loss_action'}
    assert all(torch.equal(losses[name], value) for name, value in expected.items())


def test_gradients_go_into_the_clip_and_not_into_the_bank(both, monkeypatch):
    model, batch = build_both(both)
    torch.nn.init.normal_(model.memory.actions.weight)
    recalled, recall = [], model.recall
    monkeypatch.setattr(
        model, 'recall', lambda *args: recalled.append(recall(*args)) or recalled[-1]
    )
    loss = model.loss(**batch)['memory.loss_action']
    parts = model.decoder.stages[0], model.backbone, model.memory
    for part in parts:
        (*_, last) = [one for one in part.parameters() if one.requires_grad]
        (gradient,) = torch.autograd.grad(recalled[0].sum(), last, retain_graph=True)
        assert gradient.abs().max() > 0
    for sample in batch['data_samples']:
        assert sample.remembered.vectors.grad_fn is None
        sample.remembered.vectors.zero_()
    assert not torch.isclose(model.loss(**batch)['memory.loss_action'], loss)


def test_both_learn_from_banks_of_the_first_checkpoint(both):
    load = '--cfg-options', f'load_from={both}/tiny.pth'
    for more in ['train_cfg.max_epochs=1'], ['train_cfg.max_epochs=2', '--resume']:
        run_tool('train', both / 'both.py', '--work-dir', both / 'both', *load, *more)
    first = torch.load(both / 'tiny.pth')
    last = torch.load(both / 'both/epoch_2.pth', weights_only=False)['state_dict']
    moved = {name for name, one in first.items() if not torch.equal(one, last[name])}
    for part in 'backbone', 'decoder':
        assert any(name.startswith(part) for name in moved)
    assert last['memory.actions.weight'].abs().max() > 0
    # It is no longer the detector of the banks.
    model = build(both, 'both.py', 'both/epoch_2.pth').model
    sample = DATASETS.build(model.cfg.test_dataloader.dataset)[0]
    with pytest.raises(UserError, match='another checkpoint'):
        model.test_step(pseudo_collate([sample]))


def test_banks_of_another_detector_are_refused(both, tmp_path, capsys):
    change = partial(rewrite, key='of another')
    banks = test_memory.changed_banks(both, tmp_path, change, '*')
    settings = f'load_from={both}/tiny.pth', f'train_dataloader.dataset.banks={banks}'
    line = run_and_fail(
        capsys,
        'train',
        *(both / 'both.py', '--work-dir', tmp_path / 'w', '--cfg-options', *settings),
    )
    assert 'another checkpoint' in line


def test_clips_beside_banks_give_what_a_file_gives(both):
    inferencer = build(both, 'both.py')
    found = inferencer.detect(both / '1.mp4', **DETECTION)
    (expected,) = [one for one in found.keyframes if one.time_s == 1]
    model = inferencer.model
    dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
    names = [dataset.dataset.get_data_info(n)['video_id'] for n in range(len(dataset))]
    with torch.no_grad():
        (sample,) = model.test_step(pseudo_collate([dataset[names.index('1.mp4')]]))
    scores = sample.pred_instances.scores[:, 1:].sort(descending=True).values
    expected = torch.tensor(test_memory.action_scores(expected))
    # Vectors of banks are of 16 bits.
    torch.testing.assert_close(scores, expected, atol=2e-4, rtol=0)


def test_mirrored_clips_are_refused(both):
    config = load_config(both / 'both.py').train_dataloader.dataset
    config.dataset.pipeline.insert(-2, dict(type='Flip'))
    with pytest.raises(UserError, match='Flip'):
        DATASETS.build(config)
