"""The configs of AVA, unchanged, on a miniature in its true form."""

import pytest
from mmengine.config import Config
from run_tool import python_blocks
from tiny_ava import FILM, LABEL_MAPS, NUM_FRAMES, build, evaluate, load, perfect, shown


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
    train_keys = [train.get_data_info(index)['img_key'] for index in range(len(train))]
    assert train_keys == ['train_film0,0902', 'train_film0,0903']
    # Second 902 is frame 60 of those from second 900 on, 903 is frame 90 = 64 + 26.
    val_keys = [shown(sample, frame_number) for sample in val]
    assert val_keys == [(f'{FILM},0902', 60), (f'{FILM},0903', 26)]
    assert val[0]['inputs'].shape[1] == 32
    labels = val[0]['data_samples'].gt_instances.labels
    # An action beside the 60 is trained.
    assert [row.nonzero().ravel().tolist() for row in labels] == [[2, 80], [12]]
    values = evaluate([config.val_evaluator], perfect(val))
    assert values['mAP/overall'] == values['mAP/person_AP'] == 1
    names = 'overall', 'person_AP', 'person_recall', 'stand', 'watch (a person)'
    assert set(values) == {f'mAP/{name}' for name in names}


def test_videos_of_ava_as_the_readme_says(ava, write_video, frame_number, tmp_path):
    ava()
    cut_text, whole_text = python_blocks('tools/data/ava/README.md')
    for film in ('train_film0', FILM):
        # At 10 and at 1 frames per second.
        write_video(f'data/ava/videos_15min/{film}.mkv', num_frames=NUM_FRAMES)
        write_video(f'data/ava/videos/{film}.mp4', num_frames=910, fps=1)
    cut, whole = tmp_path / 'cut.py', tmp_path / 'whole.py'
    cut.write_text(cut_text)
    whole.write_text(whole_text.replace("'my_videos.py'", repr(str(cut))))
    places = (cut, 'val', 20), (cut, 'test', 20), (whole, 'val', 902 % 64)
    for path, split, number in places:
        first, _ = build(Config.fromfile(path), split)
        assert shown(first, frame_number) == (f'{FILM},0902', number)
    assert build(Config.fromfile(cut), 'train')[0]['inputs'].shape[1] == 32
