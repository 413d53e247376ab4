"""Every config of the zoo builds, and says what the release's recipe says."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from stmixer_mm.models.heads.tubelet_head import STMixerTubeletHead
from stmixer_mm.models.shapes import trace_shapes
from stmixer_mm.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'
ALL = sorted(CONFIGS.glob('[!_]*/*.py'))
AVA = sorted(CONFIGS.glob('stmixer/*_ava*-rgb.py'))
TUBE_CLASSES = {'ucf101-24': 24, 'jhmdb': 21, 'multisports': 66}
TUBES = [
    path
    for name in TUBE_CLASSES
    for path in sorted(CONFIGS.glob(f'stmixer/*_{name}-rgb.py'))
]
TUBELETS = [path for path in TUBES if path.name.startswith('stmixer-t_')]
VIT = [path for path in AVA if 'vit' in path.name]


def ids(path):
    return path.stem


def build_without_memory(config):
    """A model whose parameters have no values."""
    from mmengine.registry import DefaultScope

    linspace = torch.linspace
    with (
        DefaultScope.overwrite_default_scope('mmaction'),
        pytest.MonkeyPatch.context() as patch,
    ):
        # What asks for values: the host's ViT of a linspace, the head of a trial.
        patch.setattr(
            torch, 'linspace', lambda *a, **k: linspace(*a, **{**k, 'device': 'cpu'})
        )
        patch.setattr(STMixerTubeletHead, 'check_parts', lambda *a: None)
        with torch.device('meta'):
            return MODELS.build(config.model)


@pytest.fixture(scope='module', params=AVA, ids=ids)
def ava(request):
    """A config of the zoo and its model, without memory for the parameters."""
    config = Config.fromfile(request.param)
    return request.param.name, config, build_without_memory(config)


def test_the_zoo_is_complete():
    assert [path.name for path in AVA] == [
        'stmixer_csn-r152_8xb2-32x2x1-12e_ava22-rgb.py',
        'stmixer_slowfast-r101-nl_8xb2-8x8x1-12e_ava22-rgb.py',
        'stmixer_slowfast-r50_8xb2-8x8x1-12e_ava-kinetics-rgb.py',
        'stmixer_slowfast-r50_8xb2-8x8x1-12e_ava21-rgb.py',
        'stmixer_slowfast-r50_8xb2-8x8x1-12e_ava22-rgb.py',
        'stmixer_slowonly-r50_8xb2-4x16x1-12e_ava22-rgb.py',
        'stmixer_vit-b-videomae_8xb1-16x4x1-12e_ava-kinetics-rgb.py',
        'stmixer_vit-b-videomae_8xb1-16x4x1-12e_ava22-rgb.py',
        'stmixer_vit-b-videomaev2_8xb1-16x4x1-12e_ava22-rgb.py',
        'stmixer_vit-l-videomae_8xb1-16x4x1-12e_ava22-rgb.py',
    ]


def check_frames(config, model):
    lengths = {
        transform.clip_len
        for pipeline in (config.train_pipeline, config.test_pipeline)
        for transform in pipeline
        if 'clip_len' in transform
    }
    (clip_len,) = lengths
    clip = torch.empty(1, 3, clip_len, 224, 224, device='meta')
    model.check_feats(trace_shapes(model, clip).feats, (224, 224))


def test_frames_of_the_clip_give_the_decoders_frames(ava):
    check_frames(*ava[1:])


def test_learning_rate_is_for_the_batch_of_the_name(ava):
    name, config, _ = ava
    gpus, clips = (int(n) for n in name.split('_')[2].split('-')[0].split('xb'))
    assert config.train_dataloader.batch_size == clips
    assert config.auto_scale_lr.base_batch_size == gpus * clips
    assert config.optim_wrapper.optimizer.lr == (1e-5 if 'vit' in name else 2e-5)


def test_weight_decay(ava):
    """None on batch norm of the backbone, on one-dimensional parameters of a ViT."""
    name, config, model = ava
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    decay = {
        id(parameter): group['weight_decay']
        for group in wrapper.param_groups
        for parameter in group['params']
    }
    norms = {
        id(parameter)
        for module in model.backbone.modules()
        if isinstance(module, torch.nn.BatchNorm3d)
        for parameter in module.parameters()
    }
    for parameter_name, parameter in model.named_parameters():
        in_backbone = parameter_name.startswith('backbone.')
        without = id(parameter) in norms or (
            'vit' in name and in_backbone and parameter.dim() == 1
        )
        assert decay[id(parameter)] == (0 if without else 1e-4), parameter_name


def test_only_slowonly_and_csn_keep_their_batch_norm(ava):
    name, config, _ = ava
    kept = config.model.backbone.get('norm_eval', False)
    assert kept == any(backbone in name for backbone in ('slowonly', 'csn'))


def test_videomaev2_weighs_actions_twice():
    losses = {
        path.stem.split('_')[1]: Config.fromfile(
            path
        ).model.head.loss_action.loss_weight
        for path in VIT
    }
    assert losses == {
        'vit-b-videomae': 0.3, 'vit-b-videomaev2': 0.6, 'vit-l-videomae': 0.3
    }  # fmt: skip


@pytest.mark.parametrize('path', ALL, ids=ids)
def test_parts_are_registered_and_known(path):
    from stmixer_mm.checks.config import check_arguments

    config = Config.fromfile(path)
    host = 'mmdet' if path.parent.name == 'still_images' else 'mmaction'
    assert config.default_scope == host
    check_arguments(config)
    registries = import_module(f'{host}.registry')
    for split in ('train', 'val', 'test'):
        assert registries.DATASETS.get(config[f'{split}_dataloader'].dataset.type)
    metrics = config.test_evaluator
    for metric in metrics if isinstance(metrics, list) else [metrics]:
        assert registries.METRICS.get(metric.type)
    assert config.custom_imports.imports == ['stmixer_mm']


@pytest.mark.parametrize('path', TUBES, ids=ids)
def test_configs_of_tubes_agree_with_themselves(path):
    config = Config.fromfile(path)
    (number,) = (n for name, n in TUBE_CLASSES.items() if name in path.name)
    assert config.model.head.num_classes == number + 1
    assert config.model.head.fallback_topk == 0
    datasets = [config[f'{split}_dataloader'].dataset for split in ('train', 'test')]
    assert [dataset.get('test_mode', False) for dataset in datasets] == [False, True]
    for part in (*datasets, *config.test_evaluator):
        assert (part.ann_file, part.split) == (config.ann_file, config.split)


def test_each_dataset_of_tubes_has_configs():
    assert [path.name.split('_8xb')[0] for path in TUBES] == [
        'stmixer-t_slowfast-r50',
        'stmixer-t_vit-b-videomae',
        'stmixer_slowfast-r50',
        *('stmixer-t_slowfast-r50', 'stmixer_slowfast-r50'),
        *('stmixer-t_slowfast-r50', 'stmixer_slowfast-r50'),
    ]


@pytest.mark.parametrize('path', TUBELETS, ids=ids)
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
    assert dataset.pipeline == config.test_pipeline
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline


@pytest.mark.parametrize(
    'path', sorted(CONFIGS.glob('stmixer/*-every-frame-rgb.py')), ids=ids
)
def test_every_frame_is_a_keyframe(path):
    assert Config.fromfile(path).train_dataloader.dataset.frame_stride == 1


def test_the_metafile_lists_the_zoo():
    models = yaml.safe_load((CONFIGS / 'stmixer' / 'metafile.yml').read_text())[
        'Models'
    ]
    zoo = sorted(f'configs/stmixer/{path.name}' for path in ALL if 'rgb' in path.name)
    assert sorted(model['Config'] for model in models) == zoo
    for model in models:
        assert model['Config'] == f'configs/stmixer/{model["Name"]}.py'


def test_another_split_as_the_readme_says(tmp_path):
    text = (CONFIGS.parent / 'tools' / 'data' / 'jhmdb' / 'README.md').read_text()
    (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    path = tmp_path / 'split.py'
    path.write_text(code.replace("'configs/", f"'{CONFIGS}/"))
    config = Config.fromfile(path)
    base = Config.fromfile(next(CONFIGS.glob('stmixer/stmixer_*_jhmdb-rgb.py')))
    for split in ('train', 'val', 'test'):
        assert config[f'{split}_dataloader'].dataset.split == 2
    for metrics in (config.val_evaluator, config.test_evaluator):
        assert [metric.split for metric in metrics] == [2, 2]
        assert [metric.type for metric in metrics] == [
            metric.type for metric in base.test_evaluator
        ]
