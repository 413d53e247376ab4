"""Laws of clips: who is where in their frames, and what transforms make of it."""

import numpy as np
import pytest
import tiny_tubes
from mmaction.datasets.transforms import CenterCrop, Flip, RandomCrop
from tiny_tubes import NUM_FRAMES, RUN_2, SIZE, gttubes, tube

from stmixer_mm.datasets.transforms import (
    FilterBoxes,
    RandomShortSideResize,
    SampleKeyframeClip,
)
from stmixer_mm.errors import UserError
from stmixer_mm.projects.tubelets.clip_dataset import (
    TrackClipDataset,
    TubeClipDataset,
    find_middles,
)
from stmixer_mm.projects.tubelets.transforms import LocateTubelets

HEIGHT, WIDTH = SIZE
SCALE = [WIDTH, HEIGHT, WIDTH, HEIGHT]
BOX = (8, 4, 24, 40)


def sampling(clip_len=4, interval=1, **kwargs):
    return [SampleKeyframeClip(clip_len, interval, **kwargs), LocateTubelets()]


@pytest.fixture
def build(tmp_path):
    """Clips of tubes; ``tubes`` are those of the one training video."""
    folder = tiny_tubes.write_frames(tmp_path / 'rgb-images')
    defaults = dict(data_prefix=dict(img=folder), use_frames=True, split=2)
    defaults |= dict(pipeline=sampling(), frame_stride=4, all_frames=True)

    def build(tubes=None, **kwargs):
        changes = gttubes(**{RUN_2: tubes}) if tubes else {}
        ann_file = tiny_tubes.write_truth(tmp_path / 'GT.pkl', **changes)
        return TubeClipDataset(ann_file, **defaults | kwargs)

    return build


@pytest.mark.parametrize(('count', 'stride'), [(1, 1), (17, 3), (8, 30)])
def test_clips_as_long_as_their_distance_cover_a_video(count, stride):
    middles = find_middles(count, stride)
    frames = middles[:, None] + np.arange(stride) - stride // 2
    assert set(range(count)) <= set(frames.ravel().tolist())
    assert set(np.diff(middles)[:-1]) <= {stride}
    assert len(middles) == -(-count // stride)
    assert middles.min() >= 0 and middles.max() < count


@pytest.mark.parametrize('clip_len, interval, stride', [(5, 3, 2), (8, 7, 9)])
def test_boxes_in_frames_are_those_of_the_file(build, clip_len, interval, stride):
    gap = tube(3, 12, BOX, (1, 0))[[0, 1, 2, 6, 9]]
    other = tube(9, 14, (36, 4, 52, 40), (0, 0.5))
    late = tube(18, 24, (30, 4, 40, 40))  # beyond the end of the video
    pipeline = sampling(clip_len, interval, allow_short=True)
    dataset = build(
        {0: [gap, late], 1: [other]}, pipeline=pipeline, frame_stride=stride
    )
    assert len(dataset) == -(-NUM_FRAMES // stride)
    offsets = (np.arange(clip_len) - clip_len // 2) * interval
    for sample in dataset:
        frames = (sample['timestamp'] + offsets).clip(1, NUM_FRAMES).tolist()
        assert sample['clip_frames'].tolist() == frames
        expected = []
        for number, (label, track) in enumerate([(1, gap), (1, late), (2, other)]):
            rows = {int(row[0]): row[1:] for row in track}
            states = [frame in rows for frame in frames]
            boxes = [rows.get(frame, np.zeros(4)) for frame in frames]
            expected += [(number, label, states, boxes)] * any(states)
        numbers, labels, states, boxes = zip(*expected, strict=True)
        assert sample['entity_ids'].tolist() == [*numbers]
        assert sample['gt_labels'].argmax(axis=1).tolist() == [*labels]
        np.testing.assert_array_equal(sample['gt_states'], states)
        np.testing.assert_allclose(sample['gt_bboxes'] * SCALE, boxes, rtol=1e-5)


def test_tubes_alike_in_all_frames_of_a_clip_are_one_person(build):
    first, second, *_ = build({0: [tube(1, 20, BOX)], 1: [tube(1, 6, BOX)]})
    assert first['gt_labels'].tolist() == [[0, 1, 1]]
    assert first['entity_ids'].tolist() == [0]
    assert second['gt_labels'].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert second['gt_states'].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_packed_samples(build):
    pipeline = [
        *sampling(4, 2),
        dict(type='DecodeFrameFiles'),
        dict(type='Resize', scale=(-1, 24)),
        dict(type='FormatShape', input_format='NCTHW', collapse=True),
        dict(type='PackTubelets'),
    ]
    sample = build(pipeline=pipeline)[0]['data_samples']
    truth = sample.gt_instances
    assert truth.bboxes[0, 2].tolist() == [4, 2, 12, 20]  # half the size
    assert (truth.states.shape, truth.labels.shape) == ((2, 4), (2, 3))
    assert (sample.clip_frames.tolist(), sample.keyframe_entry) == ([1, 1, 3, 5], 2)


# ------------------------------------------------------------------ tracks of a csv

ROWS = (
    # At 10 frames per second: frames 4, 8, 12, 16, counted from 0.
    'a,0.4,0.1,0.2,0.3,0.4,1,7',
    'a,0.8,0.2,0.2,0.4,0.4,1,7',
    'a,0.8,0.2,0.2,0.4,0.4,2,7',
    'a,0.8,0.5,0.5,0.9,1.0,3,2',
    'a,1.6,0.3,0.2,0.5,0.4,3,7',
)
OPENING = dict(type='stmixer_mm.OpenVideo')


@pytest.fixture
def tracks(write_text, write_video):
    """Clips of ROWS, in which 1.2 s is known to show nobody."""
    files = dict(empty_keyframes_file=write_text('empty.csv', 'a,1.2'))
    files['data_prefix'] = dict(img=str(write_video('a.mp4').parent))

    def build(*rows, pipeline=None):
        ann_file = write_text('ann.csv', *(rows or ROWS))
        pipeline = pipeline or [OPENING, *sampling(5, 2)]
        return TrackClipDataset(ann_file, pipeline, num_classes=4, **files)

    return build


def test_a_track_by_hand(tracks):
    _, second, third, last = samples = list(tracks())
    assert [sample['timestamp'] for sample in samples] == [0.4, 0.8, 1.2, 1.6]
    assert second['clip_frames'].tolist() == [5, 7, 9, 11, 13]
    assert second['entity_ids'].tolist() == [2, 7]
    assert second['gt_states'].tolist() == [[0, -1, 1, -1, 0], [1, -1, 1, -1, 0]]
    bboxes = [[0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.4, 0.4]]
    np.testing.assert_allclose(second['gt_bboxes'][1, [0, 2]], bboxes)
    assert not second['gt_bboxes'][:, [1, 3, 4]].any()
    # Between two boxes alike near, it is the earlier one.
    assert third['gt_states'].tolist() == [[1, -1, 0, -1, 0], [1, -1, 0, -1, 1]]
    assert last['gt_states'].tolist() == [[0, -1, 1, -1, -1]]
    labels = [sample['gt_labels'].tolist() for sample in (second, third, last)]
    assert labels == [[[0, 0, 0, 1], [0, 1, 1, 0]]] * 2 + [[[0, 0, 0, 1]]]


def test_labels_in_each_frame(tracks):
    pipeline = [OPENING, SampleKeyframeClip(5, 2), LocateTubelets(frame_actions=True)]
    second = tracks(pipeline=pipeline)[1]
    assert second['gt_labels'].shape == (2, 5, 4)
    assert not second['gt_labels'][second['gt_states'] != 1].any()
    assert second['gt_labels'][:, 2].tolist() == [[0, 0, 0, 1], [0, 1, 1, 0]]
    assert second['gt_labels'][1, 0].tolist() == [0, 1, 0, 0]
    nobody = tracks(ROWS[0], pipeline=pipeline)[1]
    assert nobody['gt_labels'].shape == (0, 5, 4)


def test_person_ids_that_are_none(tracks):
    for row in ('a,0.8,0.2,0.2,0.4,0.4,1,-1', 'a,0.4,0.2,0.2,0.4,0.4,1,7'):
        with pytest.raises(UserError, match=r'ann.csv, line 2: '):
            tracks(ROWS[0], row)


# ------------------------------------------------------------------------ transforms


def clip():
    """Two persons in three frames of 30 x 40 pixels; the first is absent in one."""
    first = [2, 3, 12, 28], [4, 3, 14, 28], [0, 0, 0, 0]
    second = [30, 2, 39, 9], [20, 2, 29, 9], [10, 2, 19, 9]
    return dict(
        imgs=[np.zeros((30, 40, 3), np.uint8)] * 3,
        img_shape=(30, 40),
        modality='RGB',
        gt_bboxes=np.array([first, second], np.float32),
        gt_states=np.array([[1, 1, 0], [1, 1, -1]]),
        gt_labels=np.eye(2, dtype=np.float32),
        entity_ids=np.array([4, 5]),
    )


@pytest.mark.parametrize(
    'transform',
    [Flip(flip_ratio=1), RandomShortSideResize((20, 40)), RandomCrop(size=17)],
    ids=lambda transform: type(transform).__name__,
)
def test_all_frames_are_moved_as_each_would_be(transform):
    np.random.seed(3)
    transformed = transform(clip())
    for entry in range(3):
        np.random.seed(3)
        single = dict(clip(), gt_bboxes=clip()['gt_bboxes'][:, entry])
        expected = transform(single)['gt_bboxes']
        np.testing.assert_array_equal(transformed['gt_bboxes'][:, entry], expected)
    np.testing.assert_array_equal(transformed['gt_states'], clip()['gt_states'])


def test_who_is_cut_away_is_absent_and_goes_with_the_last_box():
    results = CenterCrop(crop_size=20)(clip())  # x from 10 to 30
    results = FilterBoxes(min_size=3)(results)
    # The first person keeps 2 and 4 columns, of which 4 are enough; the second all
    # ten of its second box, and of its third, which is unknown, nothing is said.
    assert results['gt_states'].tolist() == [[0, 1, 0], [0, 1, -1]]
    assert FilterBoxes(min_size=5)({**results})['gt_states'].tolist() == []
    # Boxes of a keyframe, the last one, go with their labels.
    keyframe = dict(clip(), gt_bboxes=clip()['gt_bboxes'][:, 2])
    del keyframe['gt_states']
    keyframe = FilterBoxes()(CenterCrop(crop_size=20)(keyframe))
    assert keyframe['entity_ids'].tolist() == [5]
    assert keyframe['gt_labels'].tolist() == [[0, 1]]
