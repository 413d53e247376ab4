import copy

import numpy as np
import pytest
from mmaction.datasets.transforms import SampleAVAFrames
from mmcv.transforms import Compose

from stmixer_mm.datasets.transforms import (
    CropEmptyPart,
    DecodeFrameFiles,
    DecodeFrames,
    OpenVideo,
    RandomShortSideResize,
    SampleKeyframeClip,
)
from stmixer_mm.errors import UserError


@pytest.mark.parametrize(
    ('start', 'timestamp'), [(0, 0), (0, 4), (900, 1.3), (900, 3.9)]
)
def test_videos_and_extracted_frames_give_the_same_clip(
    write_video, write_frames, frame_number, start, timestamp
):
    bboxes = np.array([[0, 0.25, 0.5, 1]], dtype=np.float32)
    info = dict(timestamp=start + timestamp, gt_bboxes=bboxes, modality='RGB')
    info['timestamp_start'] = start
    sampler = dict(type='SampleKeyframeClip', clip_len=4, frame_interval=3)
    from_video = Compose([dict(type='OpenVideo'), sampler, dict(type='DecodeFrames')])
    from_frames = Compose([sampler, dict(type='DecodeFrameFiles')])
    of_files = dict(filename_tmpl='img_{:05}.jpg', start_index=3, fps=10)
    files = write_frames(start_index=3)
    frames = from_frames({**copy.deepcopy(info), **of_files, 'frame_dir': str(files)})
    videos = from_video({**info, 'filename': str(write_video()), 'start_index': 0})
    expected = np.clip(10 * timestamp + np.array([-6, -3, 0, 3]), 0, 39)
    if timestamp == 4:  # the very end
        expected = np.array([33, 36, 39, 39])
    for results in (videos, frames):
        assert [frame_number(img) for img in results['imgs']] == expected.tolist()
        assert results['img_shape'] == (48, 64)
        assert results['gt_bboxes'].tolist() == [[0, 12, 32, 48]]


def test_equal_to_the_host_where_its_convention_holds():
    clock = dict(fps=30, timestamp=905, timestamp_start=900, total_frames=300)
    info = dict(clock, start_index=0)
    ours = SampleKeyframeClip(32, 2)(dict(info))
    host = SampleAVAFrames(32, 2, test_mode=True)(dict(info))
    assert ours.keys() == host.keys()
    np.testing.assert_array_equal(ours['frame_inds'], host['frame_inds'])


def test_a_video_shorter_than_a_clip(write_video):
    info = OpenVideo()(dict(filename=str(write_video(num_frames=12)), timestamp=0.5))
    with pytest.raises(UserError, match=r'clip.mp4 has 12 frames'):
        SampleKeyframeClip(4, 4)(dict(info))
    assert SampleKeyframeClip(4, 3)(dict(info))['frame_inds'].tolist() == [0, 2, 5, 8]
    allowed = SampleKeyframeClip(4, 4, allow_short=True)(info)
    assert allowed['frame_inds'].tolist() == [0, 1, 5, 9]


def test_kept_frames_are_the_same_decoded_once_and_share_no_memory(write_video):
    path = write_video()
    info = dict(filename=str(path), timestamp=0)
    sampling = [SampleKeyframeClip(4, 2), DecodeFrames()]
    fresh = Compose([OpenVideo(), *sampling])(dict(info))
    keeping = Compose([OpenVideo(keep_frames=True), *sampling])
    first, second, *_ = keeping(dict(info))['imgs']
    assert (first == second).all()
    first += 100  # what a transform does to a frame stays with it
    assert (first != second).all()
    path.unlink()
    np.testing.assert_array_equal(keeping(info)['imgs'], fresh['imgs'])


@pytest.mark.parametrize(
    'shape, expected',
    [((240, 426), (128, 227)), ((426, 240), (227, 128)), ((60, 600), (30, 300))],
)
def test_short_side_and_bound_of_the_long_one(shape, expected):
    bboxes = np.array([[0, 0, *shape[::-1]]], np.float32)
    clip = dict(imgs=[np.zeros((*shape, 3), np.uint8)] * 2, img_shape=shape)
    resize = RandomShortSideResize((128, 128), max_long=300)
    results = resize(dict(clip, gt_bboxes=bboxes))
    assert results['img_shape'] == expected
    assert {img.shape for img in results['imgs']} == {(*expected, 3)}
    np.testing.assert_allclose(results['gt_bboxes'], [[0, 0, *expected[::-1]]], 1e-5)


def test_an_extracted_frame_that_cannot_be_read_is_named(write_frames):
    folder = write_frames()
    (folder / 'img_00004.jpg').write_bytes(b'no picture')
    files = dict(frame_dir=str(folder), filename_tmpl='img_{:05}.jpg', modality='RGB')
    with pytest.raises(UserError, match=rf'^{folder}: a frame of \[1, 4, 7\]'):
        DecodeFrameFiles()(dict(files, frame_inds=np.array([1, 4, 7])))


@pytest.mark.parametrize(
    ('timestamp', 'options', 'frame_inds'),
    [
        (2, dict(ahead_s=0), [11, 14, 17, 20]),
        (2, dict(ahead_s=0.5), [6, 9, 12, 15]),
        (0.5, dict(ahead_s=0.5), [0, 0, 0, 0]),
        (0.2, dict(ahead_s=0.5, allow_short=True), [0, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize('by_index', [False, True])
def test_clips_that_end_before_the_keyframe(timestamp, options, frame_inds, by_index):
    info = dict(fps=10, total_frames=40, frame_times=np.arange(40) / 10)
    place = dict(timestamp=timestamp + 900, timestamp_start=900)
    if by_index:
        place = dict(timestamp=0, frame_index=round(10 * timestamp))
    results = SampleKeyframeClip(4, 3, **options)({**info, **place})
    assert results['frame_inds'].tolist() == frame_inds


@pytest.mark.parametrize(
    ('box', 'shape'),
    [
        ((40, 0, 60, 60), (60, 60)),  # the left part is cut at 40, the right at 60
        ((0, 40, 120, 60), (40, 120)),
        ((10, 10, 110, 50), (60, 120)),  # no part is large enough
    ],
)
def test_a_clip_is_cropped_to_a_part_without_persons(box, shape):
    picture = np.full((60, 120, 3), 200, np.uint8)
    x1, y1, x2, y2 = box
    picture[y1:y2, x1:x2] = 255
    persons = dict(gt_bboxes=np.array([box], np.float32))
    persons |= dict(gt_labels=np.ones((1, 3), np.float32), entity_ids=np.zeros(1, int))
    sample = dict(persons, imgs=[picture] * 2, img_shape=(60, 120))
    assert CropEmptyPart(prob=0)({**sample})['imgs'][0] is picture
    results = CropEmptyPart(prob=1)({**sample})
    assert results['img_shape'] == shape
    expected = 0 if shape == (60, 120) else 200
    for image in results['imgs']:
        assert image.shape[:2] == shape and (image == expected).all()
    assert not any(len(results[name]) for name in persons)
