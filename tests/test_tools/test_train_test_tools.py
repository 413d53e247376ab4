import os
import pickle
import subprocess

import cv2
import pytest
import torch
from mmengine.registry import DefaultScope
from run_tool import run_tool
from tiny_stmixer import ROOT, tool_environment, write_project


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and work dir of a training of one epoch."""
    root = tmp_path_factory.mktemp('trained')
    config = write_project(root)
    with DefaultScope.overwrite_default_scope('mmaction'):
        run_tool('train', config, '--work-dir', root / 'work', '--seed', 3)
    return config, root / 'work'


def checkpoint_of(work_dir):
    return torch.load((work_dir / 'last_checkpoint').read_text())


def test_training_leaves_a_checkpoint_with_what_inference_needs(trained):
    _, work_dir = trained
    meta = checkpoint_of(work_dir)['meta']
    assert (meta['epoch'], meta['seed']) == (1, 3)
    assert meta['dataset_meta']['classes'] == ('stand', 'walk')
    (log,) = work_dir.glob('*/*.log')
    assert 'eta: ' in log.read_text()


def test_training_resumes_from_the_last_checkpoint_in_mixed_precision(
    trained, tmp_path
):
    config, work_dir = trained
    (tmp_path / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    switches = '--resume', '--amp', '--no-validate', '--auto-scale-lr'
    # Runs of one second would share a name, and so a log.
    settings = 'experiment_name=mixed', 'train_cfg.max_epochs=2'
    options = *switches, '--cfg-options', *settings, 'train_dataloader.batch_size=4'
    run_tool('train', config, '--work-dir', tmp_path, *options)
    assert checkpoint_of(tmp_path)['meta']['epoch'] == 2
    (log,) = (path.read_text() for path in tmp_path.glob('*/*.log'))
    assert 'Epoch(val)' not in log
    assert 'Scaling the original LR by 2.0' in log


def test_testing_dumps_and_draws(trained, tmp_path):
    config, work_dir = trained
    dump, folder = tmp_path / 'found.pkl', tmp_path / 'pictures'
    options = '--work-dir', tmp_path, '--show-dir', folder, '--interval', 2
    run_tool('test', config, work_dir / 'epoch_1.pth', '--dump', dump, *options)
    samples = pickle.loads(dump.read_bytes())
    assert len(samples) == 4
    assert samples[0]['pred_instances']['scores'].shape[1] == 3
    pictures = sorted(folder.iterdir())
    assert [path.name for path in pictures] == ['0.mp4_0001_0.jpg', '2.mp4_0001_0.jpg']
    height, width, _ = cv2.imread(str(pictures[0])).shape
    assert height > 360 and width > 2 * 480  # enlarged, or labels cover persons


def test_slurm_scripts_hand_on_their_arguments(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'
    environment = tool_environment(PATH=path, GPUS='4', SRUN_ARGS='--a=b --time=5')
    arguments = ['config with space.py', '--cfg-options', 'a=[1, 2]']
    command = [ROOT / 'tools/slurm_train.sh', 'gpu', 'job', *arguments]
    words = subprocess.check_output(command, env=environment, text=True).splitlines()
    resources = {'--partition=gpu', '--job-name=job', '--gres=gpu:4', '--ntasks=4'}
    assert resources | {'--a=b', '--time=5'} < {*words}
    script, config, *options = words[words.index('-u') + 1 :]
    assert (script, config) == (str(ROOT / 'tools/train.py'), arguments[0])
    assert options == ['--launcher', 'slurm', *arguments[1:]]
