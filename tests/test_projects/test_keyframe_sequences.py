"""Sequences of keyframes: which there are, in what order, and with whom."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import tiny_tubes
from mmcv.transforms import BaseTransform
from mmengine.dataset import pseudo_collate

import stmixer_mm.projects.track_queries  # noqa: F401
from stmixer_mm.datasets.pipelines import plain_datasets
from stmixer_mm.errors import UserError
from stmixer_mm.registry import DATASETS, MODELS, TRANSFORMS


@TRANSFORMS.register_module()
class DrawClip(BaseTransform):
    """A clip of one number that is drawn at random."""

    def transform(self, results):
        return {**results, 'imgs': np.full((3, 1, 4, 4), np.random.randint(10**6))}


PIPELINE = [
    dict(type='DrawClip'),
    dict(type='mmaction.PackActionInputs', algorithm_keys=('entity_ids',)),
]
TIMES = (0, 0.2, 0.4, 1.0, 1.2, 2.2, 2.4, 2.6)
MIXED = [('a', time) for time in TIMES[::-1]] + [('b', 3), ('b', 1)]


@pytest.fixture
def build(tmp_path, write_text):
    """Sequences of keyframes at times of videos a and b, in the csv's order."""
    for name in 'ab':
        (tmp_path / f'{name}.mp4').touch()

    def build(people=(0, 1), **settings):
        rows = [
            f'{video},{time},0.1,0.1,0.{5 + number},0.9,1,{person}'
            for video, time in MIXED
            for number, person in enumerate(people)
        ]
        dataset = dict(
            type='KeyframeDataset',
            ann_file=write_text('ann.csv', *rows),
            data_prefix=dict(img=str(tmp_path)),
            num_classes=4,
            pipeline=PIPELINE,
        )
        return DATASETS.build(
            dict(type='KeyframeSequences', dataset=dataset, **settings)
        )

    return build


def places(sequence):
    return [(sample.video_id, sample.timestamp) for sample in sequence['data_samples']]


@pytest.mark.parametrize('number, step', [(3, (0.9, 1.3)), (3, (0, 0.6))])
def test_all_sequences_come_in_order_of_time_and_no_others(build, number, step):
    least, largest = step
    expected = {
        tuple(('a', time) for time in times)
        for times in combinations(TIMES, number)
        if all(
            least - 1e-6 <= later - earlier <= largest + 1e-6
            for earlier, later in pairwise(times)
        )
    }
    dataset = build(num_keyframes=number, step=step)
    indices = [*range(len(dataset))] * 60
    assert {tuple(places(dataset[index])) for index in indices} == expected
    assert len(dataset) == len({sequence[0] for sequence in expected})


def test_a_batch_of_sequences(build):
    """The loader's own way to join samples, and the preprocessor's."""
    dataset = build(num_keyframes=2, step=(0, 9))
    assert dataset.metainfo['classes'] == ('class 1', 'class 2', 'class 3')
    preprocessor = MODELS.build(
        dict(type='ClipDataPreprocessor', mean=[0.0], std=[1.0], pad_size_divisor=4)
    )
    ends = [dataset[0], dataset[len(dataset) - 1]]
    data = preprocessor(pseudo_collate(ends))
    samples = data['data_samples']
    assert [sample.video_id for sample in samples] == ['a', 'b', 'a', 'b']
    assert [sample.sequence_place for sample in samples] == [0, 0, 1, 1]
    assert [sample.entity_ids.tolist() for sample in samples] == [[0, 1]] * 4
    # Augmentation is the same at all keyframes of a sequence.
    first, second = data['inputs'].unflatten(0, (2, 2))
    assert first.equal(second)
    assert not first[0].equal(first[1])


def test_tubes_have_sequences_too(tmp_path):
    """Of frames, whose numbers are their times."""
    tiny_tubes.write_frames(tmp_path / 'rgb')
    tubes = dict(
        type='TubeDataset',
        ann_file=tiny_tubes.write_truth(tmp_path / 'GT.pkl'),
        data_prefix=dict(img=str(tmp_path / 'rgb')),
        use_frames=True,
        frame_stride=2,
        pipeline=PIPELINE,
    )
    config = dict(type='KeyframeSequences', dataset=tubes, num_keyframes=5, step=(4, 4))
    assert plain_datasets(config) == [tubes]
    sequences = DATASETS.build(config)
    assert [time for _, time in places(sequences[0])] == [1, 5, 9, 13, 17]


@pytest.mark.parametrize(
    'settings',
    [dict(people=(0, -1)), dict(people=(4, 4)), dict(num_keyframes=9)],
    ids=str,
)
def test_persons_without_an_identity_and_videos_without_a_sequence(build, settings):
    with pytest.raises(UserError):
        build(**settings)
