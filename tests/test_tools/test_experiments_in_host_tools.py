"""The hosts' own training scripts take a step of every experiment."""

from pathlib import Path

import mmaction
import mmdet
import pytest
import torch
from run_tool import ROOT, run_tool

EXPERIMENTS = sorted((ROOT / 'configs/experiments').glob('*.py'))
ONE_STEP = [
    'train_cfg._delete_=True',
    'train_cfg.type=IterBasedTrainLoop',
    'train_cfg.max_iters=1',
    'param_scheduler=[]',
    'log_processor.by_epoch=False',
    'default_hooks.checkpoint.by_epoch=False',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_cfg=None',
    'val_dataloader=None',
    'val_evaluator=None',
]


@pytest.fixture(scope='module')
def toy_folder(tmp_path_factory):
    """A folder with ``data/toy``, as the configs have it."""
    folder = tmp_path_factory.mktemp('toy')
    run_tool(
        'make_toy_dataset',
        *('--out', folder / 'data/toy', '--train-videos', 1, '--val-videos', 1),
        *('--workers', 0),
    )
    return folder


@pytest.mark.parametrize('host', [mmaction, mmdet], ids=lambda host: host.__name__)
@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_a_training_step(host, path, toy_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(toy_folder)
    options = [*ONE_STEP, f'default_scope={host.__name__}']
    run_tool(
        Path(host.__file__).parent / '.mim/tools/train.py',
        path,
        *('--work-dir', tmp_path, '--cfg-options', *options),
    )
    state = torch.load(tmp_path / 'iter_1.pth', weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state.values())
