"""Laws of the detector for still images, and a run in mmdet's tools."""

import json
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from every_config import CONFIGS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from run_tool import run_tool
from tiny import assert_all_learn, tiny_decoder, tiny_head
from tiny_coco import write_coco

from stmixer_mm.projects.still_images.still_image import pick_detections
from stmixer_mm.registry import MODELS

HOST_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
STILL_IMAGES = sorted((CONFIGS / 'still_images').glob('*.py'))
TINY = CONFIGS / 'still_images/stmixer_tiny_1xb8-60e_toy-coco.py'


def tiny_still_image(**overrides):
    torch.manual_seed(0)
    config = dict(
        type='StillImageSTMixer',
        data_preprocessor=dict(
            type='mmdet.DetDataPreprocessor',
            mean=[100.0] * 3,
            std=[50.0] * 3,
            pad_size_divisor=32,
        ),
        backbone=dict(
            type='mmdet.ResNet',
            depth=18,
            base_channels=4,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(0, 1, 2),
            norm_eval=True,
        ),
        neck=dict(
            type='mmdet.FPN', in_channels=[4, 8, 16], out_channels=16, num_outs=3
        ),
        decoder=tiny_decoder(num_frames=1),
        head=tiny_head(score_thr=0.0, score_mode='product'),
        **overrides,
    )
    model = MODELS.build(config)
    model.init_weights()
    for parameter in model.decoder.parameters():
        if parameter.dim() > 1:
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


def image_sample(bboxes=(), labels=(), img_shape=(64, 96)):
    metainfo = dict(img_id=3, img_shape=img_shape, ori_shape=img_shape)
    sample = DetDataSample(metainfo=metainfo | dict(scale_factor=(1.0, 1.0)))
    bboxes = torch.tensor(bboxes, dtype=torch.float32).reshape(-1, 4)
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(bboxes), labels=torch.tensor(labels).long()
    )
    return sample


def batch(*samples):
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.randint(0, 256, (3, *one.img_shape), generator=generator).byte()
        for one in samples
    ]
    return dict(inputs=images, data_samples=list(samples))


def two():
    return image_sample([(5, 5, 40, 60), (50, 10, 90, 50)], [0, 2])


@pytest.mark.parametrize('samples', [(two, image_sample), (image_sample,)])
def test_losses_are_finite_and_reach_every_parameter(samples):
    model = tiny_still_image().train()
    data = model.data_preprocessor(batch(*(make() for make in samples)), training=True)
    losses = model(**data, mode='loss')
    assert len(losses) == 2 * 4
    model.parse_losses(losses)[0].backward()
    assert_all_learn(model)


def test_the_best_pairs_in_pixels_of_the_original_image():
    predictions = InstanceData(
        bboxes=torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0.25, 1, 1]]),
        scores=torch.tensor([[0, 0.9, 0.1, 0.2], [0, 0.3, 0.8, 0.7]]),
    )
    found = pick_detections(
        predictions,
        # Resized by 2 in width and 0.5 in height, then padded to the right.
        dict(img_shape=(32, 96), scale_factor=(2.0, 0.5), ori_shape=(64, 40)),
        max_per_img=3,
    )
    assert found.labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7])
    assert found.bboxes.tolist() == [[0, 0, 24, 32]] + 2 * [[24, 16, 40, 64]]
    predictions.masks = torch.rand(2, 32, 96) > 0.5
    plain = pick_detections(predictions, dict(img_shape=(32, 96)), max_per_img=100)
    assert len(plain) == 6
    assert plain.bboxes[0].tolist() == [0, 0, 48, 16]
    assert torch.equal(plain.masks[:2], predictions.masks[[0, 1]])


def test_a_batch_is_its_images_one_by_one():
    model = tiny_still_image().eval()
    samples = [two(), image_sample(img_shape=(40, 70))]
    data = model.data_preprocessor(batch(*samples))
    with torch.no_grad():
        together = [one.pred_instances.clone() for one in model(**data, mode='predict')]
        for index, sample in enumerate(samples):
            inputs = data['inputs'][index : index + 1]
            (alone,) = model(inputs, [sample], mode='predict')
            for key in ('bboxes', 'scores', 'labels'):
                found, expected = alone.pred_instances[key], together[index][key]
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('path', STILL_IMAGES, ids=lambda path: path.stem)
def test_a_config_trains_and_detects_under_the_scope_of_mmdet(path):
    config = Config.fromfile(path)
    assert config.default_scope == 'mmdet'
    config.model.backbone.init_cfg = None  # would be downloaded
    config.model.decoder.update(num_stages=1, num_queries=5, feedforward_channels=8)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    data = model.data_preprocessor(batch(two()), training=True)
    total, _ = model.parse_losses(model(**data, mode='loss'))
    assert total.isfinite()
    (sample,) = model.eval().test_step(batch(two()))
    assert len(sample.pred_instances) == min(100, 5 * (model.num_classes - 1))


def coco_numbers(work_dir):
    """What CocoMetric said last in a run."""
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (numbers,) = [line for line in lines if 'coco/bbox_mAP' in line]
    return {name: value for name, value in numbers.items() if 'coco/' in name}


def test_it_learns_in_the_tools_of_mmdet(tmp_path, monkeypatch):
    """Half of the config's schedule on half of its images; untrained, mAP_50 is 0."""
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path / 'data' / 'toy-coco', num_images=8)
    epochs = 30
    options = (
        'train_dataloader.batch_size=4',
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={epochs}',
        f'param_scheduler.1.end={epochs}',
        f'default_hooks.checkpoint.interval={epochs}',
    )
    shared = ['model.decoder.num_stages=2']
    shared += [
        f'{split}_dataloader.{setting}'
        for split in ('train', 'val', 'test')
        for setting in ('num_workers=0', 'persistent_workers=False')
    ]
    train = HOST_TOOLS / 'train.py', TINY, '--work-dir', 'train', '--cfg-options'
    run_tool(*train, *shared, *options)
    trained = coco_numbers(tmp_path / 'train')
    assert trained['coco/bbox_mAP_50'] > 0.3
    checkpoint = f'train/epoch_{epochs}.pth'
    test = HOST_TOOLS / 'test.py', TINY, checkpoint, '--work-dir', 'test'
    run_tool(*test, '--cfg-options', *shared)
    (result,) = (tmp_path / 'test').glob('*/*.json')
    tested = json.loads(result.read_text())
    assert {name: tested[name] for name in trained} == trained
