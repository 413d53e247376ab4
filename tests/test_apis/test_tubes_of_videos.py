from itertools import chain, count, islice
from weakref import ref

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from tiny_stmixer import write_video
from tiny_tubelets import tube_detector
from torch import nn

from stmixer_mm.apis.inference import detect_video
from stmixer_mm.datasets.videos import Video
from stmixer_mm.errors import UserError
from stmixer_mm.projects.tubelets.joining import ClipTubelets, join_tubelets
from stmixer_mm.registry import MODELS

SIZE = np.array([96, 64, 96, 64])


class Oracle(nn.Module):
    """Finds each person in the frames of a clip exactly, those absent at random.

    A person has a first and a last frame, a box in frame 0, and what it moves by from
    one frame to the next.
    """

    classes = ('stand', 'walk')

    def __init__(self, *persons, **clip):
        super().__init__()
        self.persons, self.clips = persons, []
        self.random = np.random.RandomState(0)
        self.head = MODELS.build(tube_detector(head=dict(score_thr=0.6))['head'])
        meta_keys = ('img_shape', 'timestamp', 'frame_index', 'frame_inds')
        pipeline = [
            dict(type='OpenVideo'),
            dict(type='SampleKeyframeClip', **clip),
            dict(type='DecodeFrames'),
            dict(type='FormatShape', input_format='NCTHW', collapse=True),
            dict(type='PackActionInputs', meta_keys=meta_keys),
        ]
        loader = dict(dataset=dict(pipeline=pipeline))
        self.cfg = Config(dict(default_scope='mmaction', test_dataloader=loader))

    def test_step(self, batch):
        for sample in batch['data_samples']:
            first = round(sample.timestamp * 10) - sample.frame_index
            frames = sample.frame_inds + first
            self.clips.append(frames.tolist())
            tubelets = [self.find(frames, *person) for person in self.persons]
            tubelets = [tubelet for tubelet in tubelets if (tubelet[1] > 0.5).any()]
            self.random.shuffle(tubelets)
            columns = zip(*tubelets, strict=True) if tubelets else [[]] * 3
            shapes = (-1, len(frames), 4), (-1, len(frames)), (-1, 3)
            bboxes, person_scores, scores = map(np.reshape, columns, shapes)
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor(bboxes / SIZE),
                person_scores=torch.tensor(person_scores),
                scores=torch.tensor(scores),
                tubelet_scores=torch.full((len(tubelets),), 0.9),
            )
        return batch['data_samples']

    def find(self, frames, first, last, bbox, step):
        present = (frames >= first) & (frames <= last)
        bboxes = np.add(bbox, frames[:, None] * np.tile(step, 2))
        bboxes[~present] = self.random.uniform(0, 60, 4)
        return bboxes, np.where(present, 0.9, 0.1), [0, 0.2, 0.6 + 0.001 * first]


def true_box(frame, bbox, step):
    return np.add(bbox, frame * np.tile(step, 2))


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('videos') / 'a.mp4'
    return write_video(path, frames=41, fps=10, size=(96, 64))


WALKER = 0, 99, (4, 5, 24, 50), (0.5, 0.1)


@pytest.mark.parametrize(
    ('clip_len', 'frame_interval', 'part', 'frames'),
    [
        (7, 3, dict(batch_size=3), range(41)),
        (1, 1, {}, range(41)),
        (8, 2, dict(start=1.3, end=2.9), range(13, 29)),
        (4, 1, dict(interval_s=2), [*range(4), *range(18, 22), *range(37, 41)]),
    ],
)
def test_every_frame_has_the_true_box(video, clip_len, frame_interval, part, frames):
    model = Oracle(WALKER, clip_len=clip_len, frame_interval=frame_interval)
    keyframes = list(detect_video(model, video, **part))
    assert [keyframe.frame_index for keyframe in keyframes] == list(frames)
    assert {tuple(keyframe.ids) for keyframe in keyframes} == {(keyframes[0].ids[0],)}
    for keyframe in keyframes:
        assert keyframe.time_s == pytest.approx(keyframe.frame_index / 10, rel=1e-7)
        bbox = true_box(keyframe.frame_index, *WALKER[2:])
        np.testing.assert_allclose(keyframe.bboxes, [bbox], atol=1e-9)
        assert keyframe.actions == [[('walk', pytest.approx(0.6))]]
    assert all(clip[0] >= 0 and clip[-1] < 41 for clip in model.clips)


def test_persons_who_come_go_and_cross_keep_their_ids(video):
    persons = [  # from left to right in frame 12
        (0, 99, (2, 5, 22, 60), (1.5, 0)),
        (11, 22, (30, 40, 40, 62), (-0.2, 0)),
        (0, 99, (62, 5, 82, 60), (-1.5, 0)),
    ]
    model = Oracle(*persons, clip_len=4, frame_interval=1)
    tracks = {}
    for keyframe in detect_video(model, video):
        for number, bbox in zip(keyframe.ids, keyframe.bboxes, strict=True):
            tracks.setdefault(number, {})[keyframe.frame_index] = bbox
    assert len(tracks) == 3
    for track in sorted(tracks.values(), key=lambda track: track[12][0]):
        first, last, *motion = persons.pop(0)
        assert [*track] == list(range(first, min(last, 40) + 1))
        for frame, bbox in track.items():
            np.testing.assert_allclose(bbox, true_box(frame, *motion), atol=1e-9)


def test_a_video_shorter_than_a_clip(tmp_path):
    video = write_video(tmp_path / 'a.mp4', frames=5, fps=10, size=(96, 64))
    clip = dict(clip_len=5, frame_interval=2)
    with pytest.raises(UserError, match='fewer than the 9'):
        detect_video(Oracle(WALKER, **clip), video)
    keyframes = detect_video(Oracle(WALKER, allow_short=True, **clip), video)
    bboxes = [keyframe.bboxes[0] for keyframe in keyframes]
    expected = [true_box(frame, *WALKER[2:]) for frame in range(5)]
    np.testing.assert_allclose(bboxes, expected, atol=1e-9)


def test_clips_that_reach_into_damage_are_left_out(video, monkeypatch):
    get_batch = Video.get_batch

    def fail(self, indices):
        if 20 in indices:
            raise self.damage(20)
        return get_batch(self, indices)

    monkeypatch.setattr(Video, 'get_batch', fail)
    model = Oracle(WALKER, clip_len=4, frame_interval=1)
    with pytest.raises(UserError, match='frame 20'):
        list(detect_video(model, video))
    errors = []
    keyframes = list(detect_video(model, video, on_damage=errors.append))
    frames = [keyframe.frame_index for keyframe in keyframes]
    assert frames == [*range(20), *range(22, 41)]
    assert {error.stretch for error in errors} == {(2.0, 2.1)}
    assert len({*chain(*(keyframe.ids for keyframe in keyframes))}) == 1


def clip(frames, bboxes, person_scores, actions):
    """A clip whose tubelets have a square box in each frame, given by its side."""
    bboxes = np.array(bboxes, float)[..., None] * [0, 0, 1, 1]
    scores = np.array(person_scores, float)
    return ClipTubelets(
        np.array(frames), bboxes, scores, np.array(actions), scores.max(1)
    )


def test_what_several_tubelets_say_is_weighted_by_their_person_scores():
    class Linker:
        def extend(self, frames, bboxes, scores):
            return np.array([7, 5][: len(scores)])

    first = [0, 2], [[10, 12], [50, 50]], [[0.9, 0.6], [0.2, 0.8]], [[0, 0.9], [0, 0]]
    clips = [clip(*first), clip([2, 4], [[18, 20]], [[0.9, 0.3]], [[0, 0.4]])]
    frames = list(join_tubelets(clips, Linker(), presence=0.5))
    rows = [(f.frame, f.ids.tolist(), f.bboxes[:, 2].tolist()) for f in frames]
    assert rows == [
        (0, [7], [10]),
        (1, [5, 7], [50, 11]),
        (2, [5, 7], [50, pytest.approx((0.6 * 12 + 0.9 * 18) / 1.5)]),
        (3, [7], [19]),
        (4, [], []),
    ]
    actions = [frame.action_scores[frame.ids == 7, 1].tolist() for frame in frames]
    assert actions[2] == [pytest.approx((0.6 * 0.9 + 0.9 * 0.4) / 1.5)]
    # Of three frames, an end counts a quarter as much as the middle, and each end alike.
    late = clip([1, 2, 3], [[18, 18, 18]], [[0.9] * 3], [[0, 0.4]])
    frames = join_tubelets([clips[0], late], Linker(), presence=0.5, overlap='hann')
    weights = np.array([0.25 * 0.6, 0.9])
    (x2,) = next(frame for frame in frames if frame.frame == 2).bboxes[1:, 2]
    assert x2 == pytest.approx(weights @ [12, 18] / weights.sum())


def test_clips_are_forgotten_when_their_frames_are_final():
    references = []

    class Linker:
        def extend(self, frames, bboxes, scores):
            ids = np.array([1])
            references.append(ref(ids))
            return ids

    frames = (np.arange(8) + 4 * index for index in count())
    clips = (clip(inds, [inds], [[0.9] * 8], [[0, 0.5]]) for inds in frames)
    for frame in islice(join_tubelets(clips, Linker(), presence=0.5), 200):
        assert len(references) == frame.frame // 4 + 1  # no later clip covers it
        assert sum(ids() is not None for ids in references) <= 3
