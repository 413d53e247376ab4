"""AVA in miniature, in its true form and layout."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator

from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.registry import DATASETS, METRICS

ROOT = Path(__file__).parents[1]
ZOO = ROOT / 'configs' / 'stmixer'
NAME = 'stmixer_slowfast-r50_8xb2-8x8x1-12e_{}-rgb.py'
FILM = '-5KQ66BBWC4'
NUM_FRAMES = 150
LABEL_MAPS = {
    '2.1': 'ava_action_list_v2.1_for_activitynet_2018.pbtxt',
    '2.2': 'ava_action_list_v2.2_for_activitynet_2019.pbtxt',
}
# Of the 60 that are evaluated; 2 is one of the other 20.
NAMES = {'bend/bow (at the waist)': 1, 'stand': 12, 'watch (a person)': 80}
# AVA's validation: two persons, one, an excluded keyframe.
AVA_LINES = (
    f'{FILM},0902,0.077,0.151,0.283,0.811,80,1',
    f'{FILM},0902,0.077,0.151,0.283,0.811,2,1',
    f'{FILM},0902,0.377,0.151,0.583,0.811,12,2',
    f'{FILM},0903,0.077,0.151,0.283,0.811,12,1',
    f'{FILM},0904,0.077,0.151,0.283,0.811,12,1',
)


@pytest.fixture
def ava(tmp_path, monkeypatch, write_frames, write_text):
    """data/ava as the README lays it out, for one version; the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(version='2.2'):
        folder = 'data/ava/annotations'
        for split in ('train', 'val'):
            film = FILM if split == 'val' else 'train_film0'
            lines = [line.replace(FILM, film) for line in AVA_LINES]
            write_text(f'{folder}/ava_{split}_v{version}.csv', *lines)
            excluded = f'ava_{split}_excluded_timestamps_v{version}.csv'
            write_text(f'{folder}/{excluded}', f'{film},0904')
            write_frames(f'data/ava/rawframes/{film}', num_frames=NUM_FRAMES)
        write_text(f'{folder}/{LABEL_MAPS[version]}', format_label_map(NAMES))

    return make


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
        instances = dict(
            bboxes=torch.tensor(info['gt_bboxes']),
            scores=torch.tensor(info['gt_labels']) * 0.9,
        )
        key = dict(video_id=info['video_id'], timestamp=info['timestamp'])
        yield dict(key, pred_instances=instances)


def evaluate(metrics, samples):
    evaluator = Evaluator([METRICS.build(metric) for metric in metrics])
    samples = list(samples)
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))
