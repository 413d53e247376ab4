from itertools import product

import numpy as np
import pytest
from mmaction.datasets import AVADataset

from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.errors import UserError

ROWS = (
    'a,2,0.1,0.2,0.3,0.4,1,0',
    'a,2,0.1,0.2,0.3,0.4,3,0',
    'a,2,0.5,0.5,0.9,1.0,2,1',
    'b,1.5,0,0,1,1,2,0',
)


@pytest.fixture
def build(tmp_path, write_text):
    """Build a dataset of ROWS with the videos a.mp4 and b.mp4 (empty files)."""
    for name in 'ab':
        (tmp_path / f'{name}.mp4').touch()
    write_text('ann.csv', *ROWS)

    def build(ann_file='ann.csv', **files):
        root = dict(data_root=str(tmp_path))
        return KeyframeDataset(ann_file, [], num_classes=4, **root, **files)

    return build


def test_equal_to_the_host_on_its_own_ground(tmp_path, write_text):
    random = np.random.RandomState(0)
    lines = []
    for timestamp, person in product(range(902, 910), range(3)):
        box = np.sort(random.rand(2, 2), axis=0).ravel().round(3)
        place = f'v,{timestamp:04d},' + ','.join(map(str, box))
        for action in random.choice(np.arange(1, 81), 2, replace=False):
            lines.append(f'{place},{action},{person}')
    kwargs = dict(
        ann_file=write_text('ann.csv', *lines),
        exclude_file=write_text('exclude.csv', 'v,0903', 'v,0907', 'w,0904'),
        pipeline=[],
        num_classes=81,
        timestamp_start=900,
        data_prefix=dict(img=str(tmp_path)),
        use_frames=True,
    )
    (tmp_path / 'v').mkdir()
    ours, host = KeyframeDataset(**kwargs), AVADataset(**kwargs, timestamp_end=1800)
    assert len(ours) == len(host) == 6
    for mine, theirs in zip(ours, host, strict=True):
        for key in mine.keys() & theirs.keys():
            if isinstance(theirs[key], np.ndarray):
                np.testing.assert_allclose(mine[key], theirs[key], rtol=1e-6)
            else:
                assert mine[key] == theirs[key]


def test_excluded_and_person_free_keyframes(build, write_text):
    write_text('exclude.csv', 'a,0002', 'b,0001', 'z,0001')
    write_text('empty.csv', 'a,7', 'b,1.5', 'b,0.5')
    dataset = build(exclude_file='exclude.csv', empty_keyframes_file='empty.csv')
    keys = [info['img_key'] for info in dataset]
    assert keys == ['b,0001.5', 'a,0007', 'b,0000.5']
    assert len(dataset[0]['gt_bboxes']) == 1  # although it is said to be empty
    assert dataset[2]['gt_bboxes'].shape == dataset[2]['gt_labels'].shape == (0, 4)
    write_text('all.csv', 'a,2', 'b,1.5')
    with pytest.raises(UserError, match='no keyframe'):
        build(exclude_file='all.csv')


def test_a_keyframe_has_the_actions_that_repeat_it(build, write_text):
    rows = [f'a,{time},0,0,0.5,0.5,1,0' for time in range(1, 5)]
    write_text('rare.csv', *rows, 'a,4,0,0,0.5,0.5,2,0')
    dataset = build('rare.csv')
    assert [*map(dataset.get_cat_ids, range(4))] == [[1], [1], [1], [1, 2]]


def test_what_grows_with_the_keyframes_is_in_the_shared_buffer(build, write_text):
    """A worker would copy the memory of other objects as it counts references."""
    write_text('ann.csv', *(f'a,{second},0,0,1,1,1,0' for second in range(100)))
    dataset = build()
    assert len(dataset) == len(dataset.data_address) == 100
    for name, value in vars(dataset).items():
        if hasattr(value, '__len__') and not isinstance(value, np.ndarray | str):
            assert len(value) < 100, name
