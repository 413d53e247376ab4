"""Configs of the zoo have the release's recipe, and agree with themselves."""

import pytest
import torch
import yaml
from every_config import CONFIGS, build_without_memory, each
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from run_tool import python_blocks

from stmixer_mm.engine.hooks import check_custom_keys
from stmixer_mm.models.shapes import trace_shapes

AVA = sorted(CONFIGS.glob('stmixer/*_ava*-rgb.py'))
TUBE_CLASSES = {'ucf101-24': 24, 'jhmdb': 21, 'multisports': 66}
TUBES = sorted(
    path for name in TUBE_CLASSES for path in CONFIGS.glob(f'stmixer/*_{name}-rgb.py')
)
TUBELETS = [path for path in TUBES if path.name.startswith('stmixer-t_')]


@pytest.fixture(scope='module', params=AVA, ids=lambda path: path.stem)
def ava(request):
    """Name of a config, the config and its model."""
    config = Config.fromfile(request.param)
    return request.param.name, config, build_without_memory(config)


def check_frames(config, model):
    """Frames of the clip give the decoder's frames."""
    transforms = [*config.train_pipeline, *config.test_pipeline]
    (clip_len,) = {t.clip_len for t in transforms if 'clip_len' in t}
    clip = torch.empty(1, 3, clip_len, 224, 224, device='meta')
    model.check_feats(trace_shapes(model, clip).feats, (224, 224))


def test_recipe_of_ava(ava):
    name, config, model = ava
    check_frames(config, model)
    gpus, clips = (int(n) for n in name.split('_')[2].split('-')[0].split('xb'))
    assert config.train_dataloader.batch_size == clips
    assert config.auto_scale_lr.base_batch_size == gpus * clips
    assert config.optim_wrapper.optimizer.lr == (1e-5 if 'vit' in name else 2e-5)
    keeps_norm = any(backbone in name for backbone in ('slowonly', 'csn'))
    assert config.model.backbone.get('norm_eval', False) == keeps_norm
    weight = 0.6 if 'videomaev2' in name else 0.3
    assert config.model.head.loss_action.loss_weight == weight


def test_weight_decay(ava):
    """None on batch norm of the backbone, on one-dimensional parameters of a ViT."""
    name, config, model = ava
    check_custom_keys(model, config.optim_wrapper)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    without = set()
    for module in model.backbone.modules():
        is_norm = isinstance(module, torch.nn.BatchNorm3d)
        for parameter in module.parameters():
            if is_norm or ('vit' in name and parameter.dim() == 1):
                without.add(parameter)
    groups = wrapper.param_groups
    decay = {p: group['weight_decay'] for group in groups for p in group['params']}
    for parameter in model.parameters():
        assert decay[parameter] == (0 if parameter in without else 1e-4)


@each(TUBES)
def test_configs_of_tubes_agree_with_themselves(path):
    config = Config.fromfile(path)
    (number,) = (n for name, n in TUBE_CLASSES.items() if name in path.name)
    head = config.model.head
    assert (head.num_classes, head.fallback_topk) == (number + 1, 0)
    datasets = []
    for split in ('train', 'test'):
        datasets.append(config[f'{split}_dataloader'].dataset)
        assert datasets[-1].get('test_mode', False) == (split == 'test')
        assert datasets[-1].pipeline == config[f'{split}_pipeline']
    for part in (*datasets, *config.test_evaluator):
        assert (part.ann_file, part.split) == (config.ann_file, config.split)
    every_frame = path.with_name(path.name.replace('-rgb', '-every-frame-rgb'))
    if every_frame.exists():
        assert Config.fromfile(every_frame).train_dataloader.dataset.frame_stride == 1


@each(TUBELETS)
def test_each_frame_is_in_two_clips_of_a_test(path):
    config = Config.fromfile(path)
    for pipeline in (config.train_pipeline, config.test_pipeline):
        names = [transform.type for transform in pipeline]
        place = names.index('SampleKeyframeClip')
        assert names[place + 1] == 'LocateTubelets' and names[-1] == 'PackTubelets'
        sample = pipeline[place]
        assert (sample.frame_interval, sample.allow_short) == (1, True)
    check_frames(config, build_without_memory(config))
    dataset = config.test_dataloader.dataset
    assert dataset.all_frames and dataset.frame_stride * 2 == sample.clip_len
    assert config.test_evaluator[0].nms == 'act'


def test_the_metafile_lists_the_zoo():
    metafile = yaml.safe_load((CONFIGS / 'stmixer/metafile.yml').read_text())
    zoo = [f'configs/stmixer/{path.name}' for path in CONFIGS.glob('stmixer/*rgb*.py')]
    assert sorted(model['Config'] for model in metafile['Models']) == sorted(zoo)
    for model in metafile['Models']:
        assert model['Config'] == f'configs/stmixer/{model["Name"]}.py'


def test_another_split_as_the_readme_shows(write_text):
    (code,) = python_blocks('tools/data/jhmdb/README.md')
    config = Config.fromfile(write_text('split.py', code))
    parts = [config[f'{s}_dataloader'].dataset for s in ('train', 'val', 'test')]
    parts += [*config.val_evaluator, *config.test_evaluator]
    assert [part.split for part in parts] == [2] * 7
