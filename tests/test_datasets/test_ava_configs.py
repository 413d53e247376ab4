"""The configs of AVA and AVA-Kinetics, unchanged, on miniatures in their true form."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from stmixer_mm.apis.inference import _class_names, clip_pipeline
from stmixer_mm.checks.datasets import check_config
from stmixer_mm.evaluation import FrameMAPMetric
from stmixer_mm.registry import DATASETS, METRICS, MODELS

ROOT = Path(__file__).parents[2]
ZOO = ROOT / 'configs' / 'stmixer'
NAME = 'stmixer_slowfast-r50_8xb2-8x8x1-12e_{}-rgb.py'
FILM = '-5KQ66BBWC4'
NUM_FRAMES = 150
LABEL_MAPS = {
    '2.1': 'ava_action_list_v2.1_for_activitynet_2018.pbtxt',
    '2.2': 'ava_action_list_v2.2_for_activitynet_2019.pbtxt',
}
# Of the 60 that are evaluated; 2 is one of the other 20.
NAMES = {1: 'bend/bow (at the waist)', 12: 'stand', 80: 'watch (a person)'}
# AVA's validation: two persons, one, an excluded keyframe.
AVA_LINES = (
    f'{FILM},0902,0.077,0.151,0.283,0.811,80,1',
    f'{FILM},0902,0.077,0.151,0.283,0.811,2,1',
    f'{FILM},0902,0.377,0.151,0.583,0.811,12,2',
    f'{FILM},0903,0.077,0.151,0.283,0.811,12,1',
    f'{FILM},0904,0.077,0.151,0.283,0.811,12,1',
)


def write(path, *lines):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines))


@pytest.fixture
def ava(tmp_path, monkeypatch, write_frames):
    """data/ava as the README lays it out, for one version; the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(version='2.2'):
        folder = Path('data/ava/annotations')
        for split in ('train', 'val'):
            film = FILM if split == 'val' else 'train_film0'
            lines = [line.replace(FILM, film) for line in AVA_LINES]
            write(folder / f'ava_{split}_v{version}.csv', *lines)
            excluded = f'ava_{split}_excluded_timestamps_v{version}.csv'
            write(folder / excluded, f'{film},0904')
            write_frames(f'data/ava/rawframes/{film}', num_frames=NUM_FRAMES)
        write(
            folder / LABEL_MAPS[version],
            *(
                f'item {{\n  name: "{name}"\n  id: {number}\n}}'
                for number, name in NAMES.items()
            ),
        )
        write(
            folder / f'ava_action_list_v{version}.pbtxt',
            *(
                f'label {{\n  name: "action {number}"\n  label_id: {number}\n'
                '  label_type: PERSON_MOVEMENT\n}'
                for number in range(1, 81)
            ),
        )

    return make


def run_tool(path, *args):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(path), *map(str, args)])
        runpy.run_path(str(ROOT / path), run_name='__main__')


@pytest.fixture
def ava_kinetics(ava, write_video):
    """Both parts: clips in folders of their classes, the annotation converted."""
    ava()
    clips = {
        'train': ('skiing (slalom)/run_-a_000010_000020', 'yoga/c_000003_000013'),
        # The first two overlap.
        'val': (
            'yoga/d_000010_000020',
            'zumba/d_000015_000025',
            'zumba/e_000000_000010',
        ),
    }
    lines = {
        'train': (
            'run_-a,14.04,0.1,0.2,0.3,0.4,12',
            'run_-a,14.04,0.1,0.2,0.3,0.4,2',
            'c,5.5,0,0,1,1,80',
            'gone,5.5,0,0,1,1,80',
        ),
        'val': (
            'd,16.08,0.1,0.2,0.3,0.4,12',
            'd,18.12,0.1,0.2,0.3,0.4,1',
            'd,18.12,0.5,0.2,0.9,1,80',
            'e,4',
            'gone,7.25',
        ),
    }
    for split in ('train', 'val'):
        for clip in clips[split]:
            write_video(f'data/kinetics700/videos_{split}/{clip}.mp4', num_frames=100)
        published = f'data/ava_kinetics/ava_kinetics_v1_0/kinetics_{split}_v1.0.csv'
        write(published, *lines[split])
        run_tool(
            'tools/data/ava_kinetics/convert.py',
            published,
            '--clips',
            f'data/kinetics700/videos_{split}',
            '--out',
            f'data/ava_kinetics/annotations/kinetics_{split}.csv',
        )


def load(name):
    return Config.fromfile(ZOO / NAME.format(name))


def build(config, split):
    dataset = DATASETS.build(config[f'{split}_dataloader'].dataset)
    dataset.full_init()
    return dataset


def shown(sample, frame_number):
    """Keyframe's name and the number, modulo 64, that its picture tells."""
    clip = sample['inputs']
    keyframe = clip[:, clip.shape[1] // 2].numpy().transpose(1, 2, 0)
    return sample['data_samples'].img_key, frame_number(keyframe)


def perfect(dataset):
    """Samples with the ground truth as detections, whatever the class."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        found = dict(
            bboxes=torch.tensor(info['gt_bboxes']),
            scores=torch.tensor(info['gt_labels']) * 0.9,
        )
        yield dict(
            video_id=info['video_id'], timestamp=info['timestamp'], pred_instances=found
        )


def evaluate(metrics, samples):
    evaluator = Evaluator([METRICS.build(metric) for metric in metrics])
    samples = list(samples)
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


@pytest.mark.parametrize('version', ['2.1', '2.2'])
def test_ava(ava, frame_number, version):
    ava(version)
    config = load(f'ava{version.replace(".", "")}')
    assert config.label_file.endswith(LABEL_MAPS[version])
    for split in ('train', 'val', 'test'):
        dataset = config[f'{split}_dataloader'].dataset
        files = (dataset.ann_file, dataset.exclude_file, dataset.label_file)
        assert all(f'_v{version}' in file for file in files)
    train, val = build(config, 'train'), build(config, 'val')
    assert [train.get_data_info(i)['img_key'] for i in range(len(train))] == [
        'train_film0,0902',
        'train_film0,0903',
    ]
    # Second 902 is frame 60 of those from second 900 on, 903 is frame 90 = 64 + 26.
    assert [shown(sample, frame_number) for sample in val] == [
        (f'{FILM},0902', 60),
        (f'{FILM},0903', 26),
    ]
    assert val[0]['inputs'].shape[1] == 32
    labels = val[0]['data_samples'].gt_instances.labels
    # An action beside the 60 is trained.
    assert [row.nonzero().ravel().tolist() for row in labels] == [[2, 80], [12]]
    values = evaluate([config.val_evaluator], perfect(val))
    assert values['mAP/overall'] == values['mAP/person_AP'] == 1
    assert set(values) == {
        'mAP/overall', 'mAP/person_AP', 'mAP/person_recall',
        'mAP/stand', 'mAP/watch (a person)',
    }  # fmt: skip


def test_all_80_classes_of_ava(ava):
    ava()
    label_file = 'data/ava/annotations/ava_action_list_v2.2.pbtxt'
    config = load('ava22')
    config.val_dataloader.dataset.label_file = label_file
    config.val_evaluator.label_file = label_file
    dataset = build(config, 'val')
    assert dataset.metainfo['classes'] == tuple(f'action {n}' for n in range(1, 81))
    values = evaluate([config.val_evaluator], perfect(dataset))
    assert values['mAP/overall'] == values['mAP/action 2'] == 1


def snippets(name):
    text = (ROOT / 'tools' / 'data' / name / 'README.md').read_text()
    codes = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    return [code.replace("'configs/", f"'{ROOT}/configs/") for code in codes]


def test_videos_of_ava_as_the_readme_says(ava, write_video, frame_number, tmp_path):
    ava()
    cut, whole = snippets('ava')
    for film in ('train_film0', FILM):
        # At 10 and at 1 frames per second.
        write_video(f'data/ava/videos_15min/{film}.mkv', num_frames=NUM_FRAMES)
        write_video(f'data/ava/videos/{film}.mp4', num_frames=910, fps=1)
    path = tmp_path / 'videos.py'
    path.write_text(cut)
    config = Config.fromfile(path)
    for split in ('val', 'test'):
        first, _ = build(config, split)
        assert shown(first, frame_number) == (f'{FILM},0902', 20)
    assert build(config, 'train')[0]['inputs'].shape[1] == 32
    child = tmp_path / 'whole.py'
    child.write_text(whole.replace("'my_videos.py'", repr(str(path))))
    first, _ = build(Config.fromfile(child), 'val')
    assert shown(first, frame_number) == (f'{FILM},0902', 902 % 64)


def test_ava_kinetics_has_the_right_frames(ava_kinetics, frame_number):
    config = load('ava-kinetics')
    train, val = build(config, 'train'), build(config, 'val')
    # Clips of 10 frames a second; d's first keyframe is nearer to the middle of the
    # first clip, its second to that of the other.
    assert [shown(sample, frame_number) for sample in val] == [
        (f'{FILM},0902', 60),
        (f'{FILM},0903', 26),
        ('yoga/d_000010_000020,0006.08', 61),
        ('zumba/d_000015_000025,0003.12', 31),
    ]
    keys = [train.get_data_info(index)['img_key'] for index in range(len(train))]
    assert keys[2:] == [
        'skiing (slalom)/run_-a_000010_000020,0004.04',
        'yoga/c_000003_000013,0002.5',
    ]
    assert len(train.metainfo['classes']) == 80
    for index in range(len(train)):
        sample = train[index]
        assert sample['inputs'].shape[1] == 32
        assert sample['data_samples'].gt_instances.labels.shape[1] == 81


def test_a_batch_mixes_the_parts(ava_kinetics):
    config = load('ava-kinetics')
    loader = Runner.build_dataloader(
        dict(
            config.val_dataloader, batch_size=4, num_workers=0, persistent_workers=False
        )
    )
    (batch,) = loader
    batch = MODELS.build(config.model.data_preprocessor)(batch, training=False)
    assert batch['inputs'].shape[:3] == (4, 3, 32)
    assert [sample.video_id for sample in batch['data_samples']] == [
        FILM, FILM, 'yoga/d_000010_000020', 'zumba/d_000015_000025'
    ]  # fmt: skip


def test_a_short_clip_is_taken(ava_kinetics, write_video):
    config = load('ava-kinetics')
    name = 'data/kinetics700/videos_val/yoga/d_000010_000020.mp4'
    write_video(name, num_frames=62)  # a clip spans 63
    assert build(config, 'val')[2]['inputs'].shape[1] == 32


def test_one_config_gives_both_numbers(ava_kinetics):
    config = load('ava-kinetics')
    val = build(config, 'val')
    samples = list(perfect(val))
    values = evaluate(config.val_evaluator, samples)
    prefixes = ('mAP', 'mAP_ava', 'mAP_kinetics')
    assert [values[f'{prefix}/overall'] for prefix in prefixes] == [1, 1, 1]
    assert next(iter(values)) == 'mAP/overall'  # what save_best='auto' takes

    only_ava = evaluate(config.val_evaluator, samples[:2])
    # Of the joint truth: bend 0 of 1, stand 2 of 3, watch 1 of 2.
    assert only_ava['mAP/overall'] == pytest.approx((0 + 2 / 3 + 1 / 2) / 3)
    assert only_ava['mAP_ava/overall'] == 1
    assert only_ava['mAP_kinetics/overall'] == 0


def test_a_part_does_not_hear_of_the_other(ava_kinetics):
    """Nor of its wrong detections; those in its own keyframes do count."""
    config = load('ava-kinetics')
    samples = list(perfect(build(config, 'val')))
    wrong = dict(bboxes=torch.tensor([[0.6, 0, 0.9, 0.1]]), scores=torch.ones(1, 81))
    for index, prefix in ((3, 'mAP_ava'), (0, 'mAP_kinetics')):
        changed = [*samples]
        changed[index] = dict(samples[index], pred_instances=wrong)
        values = evaluate(config.val_evaluator, changed)
        assert values.pop(f'{prefix}/overall') == 1
        overall = [value for name, value in values.items() if 'overall' in name]
        assert len(overall) == 2
        assert max(overall) < 1


def test_several_files_count_as_one(write_text):
    """The joint metric is the metric over the lines of all files together."""
    random = np.random.RandomState(0)
    lines = [
        f'v{i % 7},{i % 3},0,0,{random.uniform(0.3, 1):.3f},1,{i % 4 + 1},{i}'
        for i in range(60)
    ]
    parts = [lines[start::2] for start in range(2)]
    excludes = (['v1,1'], ['v2,0', 'v3,1'])
    empties = (['e,1'], ['f,1'])

    def arguments(name, annotation, excluded, empty):
        return dict(
            ann_file=write_text(f'ann{name}.csv', *annotation),
            exclude_file=write_text(f'exclude{name}.csv', *excluded),
            empty_keyframes_file=write_text(f'empty{name}.csv', *empty),
        )

    single = [
        arguments(*args) for args in zip('ab', parts, excludes, empties, strict=True)
    ]
    several = {key: [one[key] for one in single] for key in single[0]}
    whole = arguments('', lines, [*excludes[0], *excludes[1]], ['e,1', 'f,1'])
    samples = [
        dict(
            video_id=video,
            timestamp=timestamp,
            pred_instances=dict(
                bboxes=torch.tensor([[0, 0, 0.6, 1]]),
                scores=torch.tensor(random.rand(1, 5)),
            ),
        )
        for video in [*(f'v{i}' for i in range(7)), 'e', 'f']
        for timestamp in range(3)
    ]
    metrics = [
        dict(type='FrameMAPMetric', num_classes=5, **a) for a in (several, whole)
    ]
    joint, literal = (evaluate([metric], samples) for metric in metrics)
    assert joint == literal
    assert 0 < joint['mAP/overall'] < 1

    wrong = write_text('wrong.csv', 'v0,0')
    several['empty_keyframes_file'] = [wrong]
    with pytest.raises(ValueError, match=r'anna\.csv, .*annb\.csv has a box there'):
        FrameMAPMetric(num_classes=5, **several)


def test_the_check_knows_both_parts(ava_kinetics):
    reports = check_config(load('ava-kinetics'))
    places = [(report.name, report.ann_file) for report in reports]
    assert places == [
        ('train', 'data/ava/annotations/ava_train_v2.2.csv'),
        ('train', 'data/ava_kinetics/annotations/kinetics_train.csv'),
        ('val', 'data/ava/annotations/ava_val_v2.2.csv'),
        ('val', 'data/ava_kinetics/annotations/kinetics_val.csv'),
    ]
    assert [str(f) for report in reports for f in report.findings if f.is_error] == []
    assert [report.num_keyframes for report in reports] == [2, 2, 2, 2]
    Path('data/kinetics700/videos_val/yoga/d_000010_000020.mp4').unlink()
    *_, last = check_config(load('ava-kinetics'), decode=False)
    assert last.num_errors == 1
    assert 'kinetics_val.csv, line 1' in str(last.findings[-1])


def test_results_without_a_model(ava_kinetics):
    lines = (
        f'{FILM},902,0.077,0.151,0.283,0.811,80,0.9',
        f'{FILM},902,0.377,0.151,0.583,0.811,12,0.9',
        f'{FILM},903,0.077,0.151,0.283,0.811,12,0.9',
        'yoga/d_000010_000020,6.08,0.1,0.2,0.3,0.4,12,0.9',
        'zumba/d_000015_000025,3.12,0.1,0.2,0.3,0.4,1,0.9',
        'zumba/d_000015_000025,3.12,0.5,0.2,0.9,1,80,0.9',
    )
    write('found.csv', *lines)
    config = ZOO / NAME.format('ava-kinetics')
    run_tool('tools/evaluate.py', 'found.csv', config, '--json', 'values.json')
    values = json.loads(Path('values.json').read_text())
    for prefix in ('mAP', 'mAP_ava', 'mAP_kinetics'):
        assert values[f'{prefix}/overall'] == values[f'{prefix}/person_AP'] == 1


def test_a_demo_of_a_config_of_two_parts(ava_kinetics):
    """Its clip and its names of classes are those of the parts."""
    config = load('ava-kinetics')
    names = _class_names(config, None)
    assert (len(names), names[11]) == (80, 'stand')
    first, second, *_ = clip_pipeline(config).transforms
    assert (first.clip_len, type(second).__name__) == (32, 'DecodeFrames')
