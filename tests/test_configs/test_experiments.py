"""Every experiment is a small change of a config, and works from end to end."""

import re
from pathlib import Path

import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from stmixer_mm.models.shapes import trace_shapes
from stmixer_mm.registry import MODELS

EXPERIMENTS = sorted(
    Path(__file__).parents[2].joinpath('configs/experiments').glob('*.py')
)
LONGEST = 16


def clip_size(path, config):
    """Frames, height and width: those of the toy clips, unless the config says."""
    named = re.search(r'clip: (\d+)x(\d+)x(\d+)', path.read_text())
    (frames,) = (t.clip_len for t in config.train_pipeline if 'clip_len' in t)
    return tuple(map(int, named.groups())) if named else (frames, 64, 96)


def made_up_batch(num_classes, size, *, in_all_frames):
    """Two clips, one of them without a person."""
    frames, height, width = size
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(
        0, 256, (2, 3, frames, height, width), generator=generator, dtype=torch.uint8
    )
    samples = []
    for count in (2, 0):
        bboxes = torch.tensor([[5.0, 5, 40, 60], [30, 10, 80, 50]])[:count]
        labels = torch.zeros(count, num_classes)
        labels[:, 1:3] = 1
        sample = ActionDataSample(
            metainfo=dict(img_shape=(height, width), img_key=f'video,{count}')
        )
        sample.gt_instances = InstanceData(bboxes=bboxes, labels=labels)
        sample.gt_instances.masks = torch.ones(count, height, width, dtype=torch.bool)
        sample.proposals = InstanceData(bboxes=bboxes.clone())
        # Also two keyframes of a sequence.
        sample.entity_ids = range(count)
        sample.set_metainfo(dict(sequence_place=len(samples)))
        if in_all_frames:
            sample.gt_instances.bboxes = bboxes[:, None].repeat(1, frames, 1)
            sample.gt_instances.states = torch.ones(count, frames, dtype=torch.long)
            # The toy config's tubelets have actions in each frame.
            sample.gt_instances.labels = labels[:, None].repeat(1, frames, 1)
        samples.append(sample)
    return dict(inputs=list(clips), data_samples=samples)


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_forward_backward_and_prediction(path):
    config = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.build(config.model)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    batch = made_up_batch(
        model.num_classes,
        clip_size(path, config),
        in_all_frames=path.name.startswith('stmixer-t'),
    )

    data = model.train().data_preprocessor(batch, training=True)
    feats = trace_shapes(model, data['inputs']).feats
    model.check_feats(feats, tuple(data['inputs'].shape[-2:]))
    total, losses = model.parse_losses(model(**data, mode='loss'))
    assert total.isfinite() and total > 0, losses
    total.backward()
    unreached = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert not unreached
    assert all(
        parameter.grad.isfinite().all()
        for parameter in model.parameters()
        if parameter.grad is not None
    )

    for sample in model.eval().test_step(batch):
        predictions = sample.pred_instances
        assert ((predictions.bboxes >= 0) & (predictions.bboxes <= 1)).all()
        assert len(predictions.scores) == len(predictions.bboxes)
        assert predictions.scores.shape[-1] == model.num_classes
        assert ((predictions.scores >= 0) & (predictions.scores <= 1)).all()


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_an_exchange_is_short_and_says_what_it_is(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGEST
    assert lines[0].startswith('# ')


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_an_exchange_is_linked_in_the_docs(path):
    text = Path(__file__).parents[2].joinpath('docs/mixing.md').read_text()
    assert f'(../configs/experiments/{path.name})' in text
