from copy import deepcopy

import numpy as np
import pytest
import torch
from mmaction.registry import DATASETS
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from tiny_stmixer import ACTIONS

from stmixer_mm.apis.inference import detect_video, init_detector


@pytest.fixture(scope='module')
def folder(tiny_model):
    return tiny_model[0].parent


@pytest.fixture(scope='module')
def model(tiny_model):
    """It finds a person in each query."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        return init_detector(*tiny_model, cfg_options={'model.head.score_thr': 0.0})


def test_detection_equals_the_model_on_the_config_s_own_samples(model, folder):
    dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
    batch = pseudo_collate([dataset[1]])
    expected = model.test_step(batch)[0].pred_instances
    (keyframe,) = detect_video(model, folder / '1.mp4', start=1, end=1.5, score_thr=0)
    bboxes = keyframe.bboxes / (96, 48, 96, 48)
    np.testing.assert_allclose(bboxes, expected.bboxes.detach(), atol=1e-6, rtol=1e-5)
    assert all(pairs[0][1] >= pairs[1][1] for pairs in keyframe.actions)
    scores = [[dict(pairs)[name] for name in ACTIONS] for pairs in keyframe.actions]
    torch.testing.assert_close(torch.tensor(scores), expected.scores[:, 1:])


OF_VIDEOS, OF_FRAMES = ['PyAVInit', 'PyAVDecode'], ['RawFrameDecode']


@pytest.mark.parametrize('names', [OF_VIDEOS, OF_FRAMES], ids=str)
def test_the_host_s_ways_to_read_frames_serve_too(model, folder, names, monkeypatch):
    (expected, *_) = detect_video(model, folder / '0.mp4')
    monkeypatch.setattr(model, 'cfg', deepcopy(model.cfg))
    dataset = model.cfg.test_dataloader.dataset
    _, sampler, _, *transforms = dataset.pipeline
    *openers, decoder = (dict(type=name) for name in names)
    dataset.pipeline = [*openers, sampler, decoder, *transforms]
    (keyframe, *_) = detect_video(model, folder / '0.mp4')
    np.testing.assert_array_equal(expected.bboxes, keyframe.bboxes)


def test_names_of_actions_come_from_checkpoint_then_config(tiny_model, tmp_path):
    config, checkpoint = tiny_model
    assert init_detector(config, checkpoint).classes == ACTIONS
    meta, path = dict(dataset_meta=dict(classes=('a', 'b'))), tmp_path / 'new.pth'
    torch.save(dict(state_dict=torch.load(checkpoint), meta=meta), path)
    assert init_detector(config, path).classes == ('a', 'b')
    label_map = tmp_path / 'jump.pbtxt'
    label_map.write_text('item { name: "jump" id: 2 }')
    model = init_detector(config, path, label_map=label_map)
    assert model.classes == ('action 1', 'jump')
