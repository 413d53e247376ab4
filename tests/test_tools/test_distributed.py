"""Two processes do what one does with the double batch."""

import subprocess
import sys

import torch
from run_tool import free_port, run_tool
from tiny_stmixer import ROOT, tool_environment, write_project

# What each process finds out about its share of the losses.
RECORDER = """
import os
import torch
from mmengine.hooks import Hook
from stmixer_mm.models.decoder.initial_boxes import InitialBoxes
from stmixer_mm.registry import HOOKS, MODELS


@HOOKS.register_module()
class LossRecorder(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        path = os.path.join(runner.work_dir, f'losses_{runner.rank}.txt')
        with open(path, 'a') as file:
            file.write(f'{float(outputs["loss"])!r}\\n')


@MODELS.register_module()
class DiagonalBoxes(InitialBoxes):
    def predict(self, feats, frames):
        step = torch.arange(float(self.num_queries))
        boxes_xyzr = torch.stack((8 * step, 8 * step, step * 0 + 4, step * 0), dim=-1)
        return boxes_xyzr.expand(len(frames.img_shapes), -1, -1)
"""

CHILD = """
_base_ = './tiny.py'
custom_imports = dict(imports=['stmixer_mm', 'loss_recorder'])
custom_hooks = [dict(type='LossRecorder')]
model = dict(
    # The statistics of a batch are not those of its halves.
    backbone=dict(norm_eval=True),
    # Where all boxes are the whole frame, rounding decides who is matched to whom.
    initial_boxes=dict(type='DiagonalBoxes'),
)
train_dataloader = dict(
    dataset=dict(ann_file='some.csv', empty_keyframes_file='nobody.csv')
)
"""


def results(work_dir):
    """Losses (processes, steps) and the parameters after the last step."""
    losses = [
        [float(line) for line in path.read_text().split()]
        for path in sorted(work_dir.glob('losses_*.txt'))
    ]
    state = torch.load(work_dir / 'epoch_1.pth')['state_dict']
    return torch.tensor(losses, dtype=torch.float64), state


def test_two_processes_equal_one_with_the_double_batch(
    tmp_path, write_text, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    write_project(tmp_path)
    rows = (tmp_path / 'train.csv').read_text().split()
    # In the second iteration one of the processes sees no person at all.
    write_text('some.csv', *(row for row in rows if row[0] != '3'))
    write_text('nobody.csv', '3.mp4,1')
    write_text('loss_recorder.py', RECORDER)
    project = write_text('child.py', CHILD)

    def options(folder, batch_size):
        setting = f'train_dataloader.batch_size={batch_size}'
        return ('--work-dir', folder, '--no-validate', '--cfg-options', setting)

    environment = tool_environment(GPUS='2', PORT=str(free_port()))
    environment['PYTHONPATH'] += f':{tmp_path}'
    two = subprocess.Popen(
        [ROOT / 'tools' / 'dist_train.sh', project, *options(tmp_path / 'two', 1)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        run_tool('train', project, *options(tmp_path / 'one', 2))
        _, errors = two.communicate()
    finally:
        two.kill()
    assert two.returncode == 0, errors
    loss, state = results(tmp_path / 'one')
    losses, halves = results(tmp_path / 'two')
    assert (loss.shape, losses.shape) == ((1, 2), (2, 2))
    torch.testing.assert_close(losses.mean(0), loss[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(losses[0], losses[1])  # they saw different samples
    for name, value in state.items():
        torch.testing.assert_close(halves[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_failure_is_reported_without_a_traceback(write_text):
    script = write_text('fails.py', 'import sys', 'sys.exit("error: a sentence")')
    launch = [sys.executable, ROOT / 'tools/launch.py', f'--master_port={free_port()}']
    done = subprocess.run([*launch, script], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'error: a sentence' in done.stderr and 'error: process 0' in done.stderr
    assert 'Traceback' not in done.stderr
