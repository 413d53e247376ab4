"""The main job on real input: train on a real clip, evaluate, detect in it."""

import json
import os
from pathlib import Path

import pytest
from run_tool import ROOT, run_tool

CONFIG = ROOT / 'configs' / 'basketball' / 'stmixer_tiny_1xb4-4x8x1_basketball.py'
REAL_DATA = os.environ.get('STMIXER_REAL_DATA')


@pytest.mark.skipif(not REAL_DATA, reason='STMIXER_REAL_DATA is not set')
def test_a_real_clip_is_learnt_from_and_detected_in(tmp_path, monkeypatch):
    """The whole config, 400 steps, remembers all keyframes (docs/benchmarks.md)."""
    (tmp_path / 'data').mkdir()
    clip = Path(REAL_DATA, 'basketball').resolve()
    (tmp_path / 'data' / 'basketball').symlink_to(clip)
    monkeypatch.chdir(tmp_path)
    steps = 'train_cfg.max_iters=24', 'train_cfg.val_interval=24'
    options = 'default_hooks.checkpoint.interval=24', 'default_hooks.logger.interval=8'
    warmup = 'param_scheduler.0.end=4', 'param_scheduler.1.begin=4'
    run_tool('train', CONFIG, '--seed', 0, '--cfg-options', *steps, *warmup, *options)
    (scalars,) = tmp_path.glob('work_dirs/*/*/vis_data/scalars.json')
    *logged, scores = map(json.loads, scalars.read_text().splitlines())
    losses = [line['loss'] for line in logged if 'loss' in line]
    assert losses[-1] < 0.9 * losses[0]
    assert 0 <= scores['mAP/overall'] <= 1

    (checkpoint,) = tmp_path.glob('work_dirs/*/iter_24.pth')
    video = clip / 'basketball.mp4'
    model = '--model', CONFIG, '--weights', checkpoint, '--person-thr', 0
    run_tool('detect', video, *model, '--out', 'results')
    keyframes = json.loads(Path('results/basketball.json').read_text())['keyframes']
    assert len(keyframes) > 9 and all(keyframe['persons'] for keyframe in keyframes)
