"""The configs of this repository, with and without projects, and what they all keep.

As a script: check configs, in processes that have imported only what they name.
"""

import functools
import re
import subprocess
import sys
from importlib import import_module
from multiprocessing import get_context

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from mmengine.utils import import_modules_from_strings
from run_tool import ROOT
from tiny import assert_all_learn, data_sample

from stmixer_mm.apis.config import check_arguments
from stmixer_mm.models.shapes import trace_shapes

CONFIGS = ROOT / 'configs'
ALL = sorted(CONFIGS.glob('[!_]*/*.py'))


@functools.cache
def names_project(path):
    """True where a config, or one that it inherits, imports a project."""
    text = path.read_text()
    bases = re.findall(r"'(\.[\w./-]+\.py)'", text)
    return 'stmixer_mm.projects' in text or any(
        names_project((path.parent / base).resolve()) for base in bases
    )


CORE = [path for path in ALL if not names_project(path)]
OF_PROJECTS = [path for path in ALL if names_project(path)]


def experiments(paths):
    return [path for path in paths if path.parent.name == 'experiments']


def each(paths):
    return pytest.mark.parametrize('path', paths, ids=lambda path: path.stem)


def assert_each_is_whole(paths):
    command = [sys.executable, __file__, *paths]
    script = subprocess.run(command, capture_output=True, text=True)
    assert script.returncode == 0, script.stderr


def check_alone(path):
    """Find all parts of a config with nothing but its custom_imports."""
    print(path, file=sys.stderr)
    config = Config.fromfile(path, import_custom_modules=False)
    import_modules_from_strings(**config.custom_imports)
    check_arguments(config)
    host = import_module(f'{config.default_scope}.registry')
    for split in ('train', 'val', 'test'):
        assert host.DATASETS.get(config[f'{split}_dataloader'].dataset.type)
    metrics = config.test_evaluator
    for metric in metrics if isinstance(metrics, list) else [metrics]:
        assert host.METRICS.get(metric.type)


def build_without_memory(config):
    """A model whose backbone, neck and decoder have no values."""
    linspace = torch.linspace
    with (
        pytest.MonkeyPatch.context() as patch,
        DefaultScope.overwrite_default_scope(config.default_scope),
        torch.device('meta'),
    ):
        # The host's ViT asks for values of one.
        patch.setattr(torch, 'linspace', lambda *args: linspace(*args, device='cpu'))
        return MODELS.build(config.model)


def made_up_batch(num_classes, size, *, in_all_frames):
    """Two clips, one of them without a person."""
    (frames, *img_shape), samples = size, []
    clips = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    for place, count in enumerate((2, 0)):  # also two keyframes of a sequence
        persons = [(5, 5, 40, 60), (30, 10, 80, 50)][:count], [(1, 2)] * count
        sizes = dict(img_shape=tuple(img_shape), num_classes=num_classes)
        sample = data_sample(*persons, **sizes, sequence_place=place)
        sample.entity_ids = range(count)
        bboxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
        sample.gt_instances.masks = torch.ones(count, *img_shape, dtype=torch.bool)
        sample.proposals = InstanceData(bboxes=bboxes.clone())
        if in_all_frames:
            sample.gt_instances.bboxes = bboxes[:, None].repeat(1, frames, 1)
            sample.gt_instances.states = torch.ones(count, frames, dtype=torch.long)
            # The toy config's tubelets have actions in each frame.
            sample.gt_instances.labels = labels[:, None].repeat(1, frames, 1)
        samples.append(sample)
    return dict(inputs=list(clips), data_samples=samples)


def assert_trains_and_predicts(config):
    """Losses, gradients of all parameters and predictions on clips that are made up."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):  # works from both hosts' scope
        model = MODELS.build(config.model)
    model.init_weights()
    (frames,) = (t.clip_len for t in config.train_pipeline if 'clip_len' in t)
    size = frames, 64, 96
    has_tubelets = 'Tubelet' in config.model.get('head', {}).get('type', '')
    batch = made_up_batch(model.num_classes, size, in_all_frames=has_tubelets)

    data = model.train().data_preprocessor(batch, training=True)
    feats = trace_shapes(model, data['inputs']).feats
    model.check_feats(feats, tuple(data['inputs'].shape[-2:]))
    total, losses = model.parse_losses(model(**data, mode='loss'))
    assert total.isfinite() and total > 0, losses
    total.backward()
    assert_all_learn(model)

    for sample in model.eval().test_step(batch):
        bboxes, scores = sample.pred_instances.bboxes, sample.pred_instances.scores
        for values in bboxes, scores:
            assert ((values >= 0) & (values <= 1)).all()
        assert len(scores) == len(bboxes)
        assert scores.shape[-1] == model.num_classes


if __name__ == '__main__':
    by_imports = {}
    for path in sys.argv[1:]:
        config = Config.fromfile(path, import_custom_modules=False)
        by_imports.setdefault(str(config.custom_imports), []).append(path)
    import_module('stmixer_mm')
    import_module('mmaction.models')
    for paths in by_imports.values():
        with get_context('fork').Pool(1) as pool:  # this process imports no project
            pool.map(check_alone, paths)
