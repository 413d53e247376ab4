"""The example of projects/masks/README.md, as it stands there."""

from pathlib import Path

import jsonschema
import numpy as np
import torch
from mmengine.config import Config
from run_tool import python_blocks
from tiny import MASK_HEAD
from tiny_stmixer import write_project, write_video

from stmixer_mm.apis import ActionDetInferencer
from stmixer_mm.apis.inference import init_detector
from stmixer_mm.apis.results import detections_schema
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.pictures import decode


def test_masks_from_a_model_to_a_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video('VIDEO.mp4', frames=8)
    config = Config.fromfile(write_project(tmp_path))
    config.custom_imports = dict(imports=['stmixer_mm.projects.masks'])
    config.model.mask_head = dict(MASK_HEAD, num_levels=2)
    config.test_dataloader.dataset.pipeline[-1] = dict(type='PackMasks')
    config.model.head.score_thr = 0.0
    config.dump('CONFIG.py')
    torch.manual_seed(0)
    torch.save(init_detector('CONFIG.py', None).state_dict(), 'CHECKPOINT.pth')

    detections = ActionDetInferencer('CONFIG.py', 'CHECKPOINT.pth').detect(
        'VIDEO.mp4', interval_s=0.5, nms_thr=None, pred_score_thr=0, vis_file='out.mp4'
    )
    for keyframe in detections.keyframes:
        assert len(keyframe.masks) == len(keyframe.bboxes) > 0
        assert decode(keyframe.masks[0]).shape == (48, 64)
    jsonschema.validate(detections.to_dict(), detections_schema())
    assert Path('out.mp4').stat().st_size > 0

    (text,) = python_blocks('stmixer_mm/projects/masks/README.md')
    for name, suffix in (('VIDEO', '.mp4'), ('CONFIG', '.py'), ('CHECKPOINT', '.pth')):
        text = text.replace(f"'{name}'", f"'{name}{suffix}'")
    exec(text, {})
    blurred, original = (
        np.array(open_video(name).get_batch(range(8))).astype(int)
        for name in ('blurred.mp4', 'VIDEO.mp4')
    )
    assert blurred.shape == original.shape
    # The noise is smoothed where somebody is, and nobody of the model waves.
    assert blurred.std(axis=(1, 2)).mean() < original.std(axis=(1, 2)).mean()
