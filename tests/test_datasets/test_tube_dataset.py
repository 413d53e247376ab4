import numpy as np
import pytest
import tiny_tubes
import torch
from mmaction.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from tiny_stmixer import ROOT
from tiny_tubes import NUM_FRAMES, RUN_1, RUN_2, SIT, SIZE, gttubes, tube

from stmixer_mm.datasets.tube_dataset import TubeDataset, merge_persons, video_persons
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.tube_metric import EXCLUDED_LABELS

HEIGHT, WIDTH = SIZE
SCALE = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])


@pytest.fixture
def build(tmp_path):
    """Build a dataset of frames; ``content`` are changes of the file."""
    tiny_tubes.write_frames(tmp_path / 'rgb-images')
    folders = dict(data_root=str(tmp_path), data_prefix=dict(img='rgb-images'))

    def build(content=None, pipeline=(), **kwargs):
        tiny_tubes.write_truth(tmp_path / 'GT.pkl', **content or {})
        return TubeDataset('GT.pkl', pipeline, use_frames=True, **folders, **kwargs)

    return build


def keys(dataset):
    return [(info['video_id'], info['timestamp']) for info in dataset]


def test_every_frame_with_a_box_is_a_keyframe(build):
    dataset, numbers = build(), {RUN_1: range(1, 21), SIT: range(5, 21)}
    assert keys(dataset) == [(name, n) for name in numbers for n in numbers[name]]
    sample = dataset[2]
    # Frame 3 of the tube: moved twice by (1, 0).
    np.testing.assert_allclose(sample['gt_bboxes'] * SCALE, [[10, 4, 26, 40]])
    assert sample['gt_labels'].tolist() == [[0, 1, 0]]
    assert dataset[20]['gt_labels'].tolist() == [[0, 0, 1]]
    assert (sample['frame_index'], sample['img_key']) == (2, f'{RUN_1},00003')
    assert dataset.metainfo['classes'] == ('Run', 'Sit')


def test_splits_strides_and_all_frames(build):
    assert keys(build(split=2, frame_stride=8)) == [(RUN_2, 1), (RUN_2, 9), (RUN_2, 17)]
    tested = build(test_mode=True)
    assert [len(info['gt_bboxes']) for info in tested] == [1] * 2 + [2] * 14 + [1] * 18
    everything = build(test_mode=True, all_frames=True)
    numbers = [*range(1, NUM_FRAMES + 1)]
    assert keys(everything) == [(name, n) for name in (RUN_2, SIT) for n in numbers]
    assert [info['entity_ids'].tolist() for info in everything][1:3] == [[0], [0, 1]]
    empty = everything[19]
    assert (empty['gt_bboxes'].shape, empty['gt_labels'].shape) == ((0, 4), (0, 3))


def test_equal_boxes_of_a_frame_are_one_person():
    box, other = (8, 4, 24, 40), (30, 4, 40, 40)
    sizes = dict(resolution=SIZE, num_classes=4)
    classes = {0: [tube(1, 3, box)], 2: [tube(2, 2, other), tube(3, 4, box)]}
    persons = merge_persons(video_persons(classes, **sizes))
    assert persons['time'].tolist() == [1, 2, 2, 3, 4]
    labels = [np.flatnonzero(row).tolist() for row in persons['labels']]
    assert labels == [[1], [1], [3], [1, 3], [3]]
    assert persons['id'].tolist() == [0, 0, 1, 0, 2]
    np.testing.assert_allclose(persons['bbox_norm'][2] * SCALE, other)
    assert len(merge_persons(video_persons({0: []}, **sizes))) == 0


def test_boxes_outside_are_clipped_or_left_out(build):
    with pytest.raises(UserError):  # nothing to train on
        build(gttubes(**{RUN_2: {}}), split=2)
    partly = tube(1, 2, (-8, -4, 24, 96))
    gone = tube(7, 8, (WIDTH + 4, 0, WIDTH + 9, 9))
    content = gttubes(**{RUN_2: {0: [partly, gone]}})
    (first, second) = build(content, split=2)
    np.testing.assert_allclose(first['gt_bboxes'], [[0, 0, 24 / WIDTH, 1]])
    assert second['timestamp'] == 2
    # Evaluated all the same.
    tested = build(dict(content, test_videos=[[RUN_2]]), test_mode=True)
    assert [info['timestamp'] for info in tested] == [1, 2, 7, 8]
    assert tested[2]['gt_bboxes'].shape == (0, 4)


def test_the_frame_of_the_boxes_is_in_the_middle_of_the_clip(build):
    clip = dict(type='SampleKeyframeClip', clip_len=3, frame_interval=2)
    dataset = build(pipeline=[clip, dict(type='DecodeFrameFiles')])
    for index in (0, 10, 19):
        sample = dataset[index]
        # Frame n has the brightness 8 n.
        assert abs(sample['imgs'][1].mean() - 8 * sample['timestamp']) < 3
        np.testing.assert_allclose(sample['gt_bboxes'][0, 0], 8 + index, rtol=1e-5)


def detect_perfectly(batch):
    """Samples of a batch with their ground truth as prediction."""
    for sample in batch['data_samples']:
        truth, size = sample.gt_instances, torch.tensor(sample.img_shape[::-1])
        bboxes, scores = truth.bboxes / size.repeat(2), truth.labels * 0.9
        sample.pred_instances = InstanceData(bboxes=bboxes, scores=scores)
    return batch['data_samples']


@pytest.mark.parametrize('layout', ['ucf101-24', 'multisports'])
def test_from_the_disk_to_the_score(tmp_path, layout):
    config = tiny_tubes.tube_config(tmp_path, layout)
    config.work_dir = str(tmp_path / 'work')
    config.experiment_name = f'tubes_{layout}'
    runner = Runner.from_cfg(config)
    runner.train()
    runner.model.test_step = detect_perfectly
    values = runner.test()
    assert {'frame_mAP/overall@0.5', 'video_mAP/overall@0.5:0.95'} < values.keys()
    assert set(values.values()) == {1}


@pytest.mark.parametrize(
    ('name', 'folder', 'suffix', 'ann_file'),
    [
        ('ucf101-24', 'rgb-images', '.jpg', 'UCF101v2-GT.pkl'),
        ('jhmdb', 'Frames', '.png', 'JHMDB-GT.pkl'),
        ('multisports', 'trainval', '.mp4', 'trainval/multisports_GT.pkl'),
    ],
)
def test_the_configs_read_the_published_layout(
    tmp_path, monkeypatch, name, folder, suffix, ann_file
):
    path = f'configs/stmixer/stmixer_slowfast-r50_8xb2-8x8x1-12e_{name}-rgb.py'
    config = Config.fromfile(ROOT / path)
    root = tmp_path / 'data' / name.replace('-', '_')
    if suffix == '.mp4':
        tiny_tubes.write_videos(root / folder)
    else:
        tiny_tubes.write_frames(root / folder, suffix)
    labels = ['Run', 'Sit', *EXCLUDED_LABELS['multisports']]
    tiny_tubes.write_truth(root / ann_file, labels=labels)
    monkeypatch.chdir(tmp_path)
    train = DATASETS.build(config.train_dataloader.dataset)
    test = DATASETS.build(config.test_dataloader.dataset)
    assert 2 <= len(train) < 20
    assert len(test) == 2 * NUM_FRAMES
    assert test[0]['inputs'].shape == (3, 32, 256, 341)
    assert train[0]['inputs'].shape[:2] == (3, 32)
    parts = train, test, *map(METRICS.build, config.test_evaluator)
    assert {part.num_classes for part in parts} == {len(labels) + 1}


def test_bystanders_are_persons_without_an_action(build, tmp_path):
    file = tmp_path / 'bystanders.csv'
    file.write_text(f'{RUN_1},3,0.5,0.25,1,1\n{SIT},1,0,0,1,1\n')
    dataset = build(bystanders_file='bystanders.csv')
    assert keys(dataset) == keys(build())  # they make no keyframe
    sample = dataset[2]
    np.testing.assert_allclose(sample['gt_bboxes'][1], [0.5, 0.25, 1, 1])
    assert sample['gt_labels'].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert len(dataset[3]['gt_bboxes']) == 1
    file.write_text(f'{RUN_1},3,0.5,0.25,1\n')
    with pytest.raises(UserError, match=r'bystanders\.csv, line 1: .*5 columns'):
        build(bystanders_file='bystanders.csv')
