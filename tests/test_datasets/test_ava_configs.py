"""The configs of AVA, unchanged, on a miniature in its true form."""

import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_ava import (
    FILM,
    LABEL_MAPS,
    NUM_FRAMES,
    ROOT,
    build,
    evaluate,
    load,
    perfect,
    shown,
)


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


def test_several_files_count_as_one(write_text):
    """The joint metric is the metric over the lines of all files together."""
    random = np.random.RandomState(0)
    lines = [
        f'v{i % 7},{i % 3},0,0,{random.uniform(0.3, 1):.3f},1,{i % 4 + 1},{i}'
        for i in range(60)
    ]
    contents = dict(
        ann_file=(lines[::2], lines[1::2]),
        exclude_file=(['v1,1'], ['v2,0', 'v3,1']),
        empty_keyframes_file=(['e,1'], ['f,1']),
    )
    several, whole = {}, {}
    for key, parts in contents.items():
        several[key] = [write_text(f'{key}{i}', *part) for i, part in enumerate(parts)]
        whole[key] = write_text(key, *parts[0], *parts[1])
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
    joint, literal = (
        evaluate([dict(type='FrameMAPMetric', num_classes=5, **files)], samples)
        for files in (several, whole)
    )
    assert joint == literal
    assert 0 < joint['mAP/overall'] < 1
