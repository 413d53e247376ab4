"""J-HMDB-21, and the model of this package, which learned from its training videos."""

import json
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from run_tool import ROOT, run_tool

from stmixer_mm.apis import ActionDetInferencer
from stmixer_mm.datasets.annotations.tube_annotations import read_tube_annotations
from stmixer_mm.datasets.tube_dataset import TubeDataset
from stmixer_mm.errors import UserError

REAL_DATA = os.environ.get('STMIXER_REAL_DATA')
pytestmark = pytest.mark.skipif(not REAL_DATA, reason='STMIXER_REAL_DATA is not set')
JHMDB = Path(REAL_DATA or '', 'jhmdb').resolve()
TRUTH = JHMDB / 'JHMDB-GT.pkl'
VIDEOS = dict(use_frames=False, data_prefix=dict(img=str(JHMDB / 'videos')))
CONFIGS = ROOT / 'configs' / 'small'
SHIPPED = CONFIGS / 'stmixer-n-maps_1xb8-4x8x1-2e_jhmdb-rgb.py'
WEIGHTS = ROOT / 'stmixer_mm' / 'weights' / 'stmixer-n_jhmdb' / 'model.safetensors'
MIDDLE_FRAMES_MAP = 0.6290  # of 40 test videos


@pytest.fixture(scope='module')
def truth():
    return read_tube_annotations(TRUTH)


def tubes_of(truth, video):
    return [tube for group in truth.gttubes[video].values() for tube in group]


def test_the_benchmark_is_complete(truth):
    boxes = sum(len(tube) for video in truth.gttubes for tube in tubes_of(truth, video))
    assert (len(truth.labels), len(truth.gttubes), boxes) == (21, 928, 31838)
    splits = zip(truth.train_videos, truth.test_videos, strict=True)
    sizes = [(len(train), len(test)) for train, test in splits]
    assert sizes == [(660, 268), (658, 270), (663, 265)]
    dataset = TubeDataset(str(TRUTH), [], test_mode=True, **VIDEOS)
    assert len(dataset) == 9126


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / 'brush_hair').mkdir()
    with pytest.raises(UserError, match=r'660 of the 660 videos of .* are missing'):
        TubeDataset(str(TRUTH), [], data_prefix=dict(img=str(tmp_path)))


def write_part(truth, path, videos, labels):
    """The middle frames of some videos, to train and to test on."""
    tubes = {
        video: {
            labels.index(truth.labels[label]): [
                tube[len(tube) // 2 :][:1] for tube in group
            ]
            for label, group in truth.gttubes[video].items()
        }
        for video in videos
    }
    content = dict(
        labels=list(labels),
        train_videos=[videos],
        test_videos=[videos],
        nframes={video: truth.nframes[video] for video in videos},
        resolution={video: truth.resolution[video] for video in videos},
        gttubes=tubes,
    )
    path.write_bytes(pickle.dumps(content, protocol=2))


def first_of_classes(videos, number):
    """The first few videos of each class."""
    counts = Counter()
    chosen = []
    for video in videos:
        label = video.split('/')[0]
        counts[label] += 1
        if counts[label] <= number:
            chosen.append(video)
    return chosen


def write_config(config, path, ann_file, **settings):
    """A recipe on videos, with an annotation of one's own."""
    cfg = Config.fromfile(config)
    for name in ('train_dataloader', 'test_dataloader', 'val_dataloader'):
        dataset = cfg[name].dataset
        dataset.update(ann_file=str(ann_file), data_root='', all_frames=False, **VIDEOS)
        dataset.pop('bystanders_file', None)
        opened = dict(type='OpenVideo', keep_frames=True)
        decoded = dict(type='DecodeFrames')
        clip, _, *transforms = dataset.pipeline
        dataset.pipeline = [opened, clip, decoded, *transforms]
    metric = dict(type='TubeFrameMAPMetric', ann_file=str(ann_file))
    cfg.val_evaluator = cfg.test_evaluator = [metric]
    cfg.model.backbone.backbone.checkpoint = None
    cfg.merge_from_dict(settings)
    cfg.dump(path)
    return path


def read_scores(folder):
    (file,) = folder.glob('*/*.json')
    return json.loads(file.read_text())


def test_the_model_of_this_package_finds_who_acts(truth, tmp_path):
    videos = first_of_classes(truth.test_videos[0], 2)[:40]
    write_part(truth, tmp_path / 'GT.pkl', videos, truth.labels)
    config = write_config(SHIPPED, tmp_path / 'config.py', tmp_path / 'GT.pkl')
    run_tool('test', config, WEIGHTS, '--work-dir', tmp_path / 'work')
    score = read_scores(tmp_path / 'work')['frame_mAP/overall@0.5']
    assert score == pytest.approx(MIDDLE_FRAMES_MAP, abs=0.005)


def test_the_model_of_this_package_is_quiet_in_the_dark():
    inferencer = ActionDetInferencer(show_progress=False)
    video = inferencer.detect(np.zeros((40, 192, 256, 3), np.uint8), interval_s=0.2)
    assert video.error is None and len(video.keyframes) > 4
    assert not any(keyframe.persons for keyframe in video.keyframes)


def test_few_videos_are_learned_from_in_a_minute(truth, tmp_path):
    """8 clips of 4 classes, from the weights of this package but for the actions."""
    labels = 'golf', 'pour', 'run', 'wave'
    videos = [
        video
        for video in first_of_classes(truth.train_videos[0], 2)
        if video.split('/')[0] in labels
    ]
    write_part(truth, tmp_path / 'GT.pkl', videos, labels)
    config = write_config(
        SHIPPED,
        tmp_path / 'config.py',
        tmp_path / 'GT.pkl',
        load_from=str(WEIGHTS),
        **{
            'model.neck.num_actions': len(labels),
            'model.head.num_classes': len(labels) + 1,
            'model.head.loss_action.class_weight': [0.0] + [1.0] * len(labels),
            'default_hooks.check_checkpoint.allow': ['neck.maps', '_labels'],
            'train_cfg.max_epochs': 10,
            'train_cfg.val_interval': 10,
            'param_scheduler.0.end': 5,
        },
    )
    run_tool('train', config, '--work-dir', tmp_path / 'work')
    (scalars,) = tmp_path.glob('work/*/vis_data/scalars.json')
    scores = json.loads(scalars.read_text().splitlines()[-1])
    assert scores['frame_mAP/overall@0.5'] >= 0.8
