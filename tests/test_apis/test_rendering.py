import numpy as np
import pytest
from detections import keyframe as record
from tiny_stmixer import write_video

from stmixer_mm.apis import rendering
from stmixer_mm.apis.rendering import Annotator, render_video
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.visualization.draw import draw_detections


def keyframe(frame, boxes, label='walk', ids=None):
    actions = [[(label, 0.9)]] * len(boxes)
    return record(frame / 10, frame, boxes, actions, ids)


@pytest.fixture
def draw(monkeypatch):
    """What is drawn on each frame of keyframes: (left edges, names of actions, ids)."""
    drawn = []

    def note(frame, bboxes, actions, *, ids, masks=None):
        names = [pairs[0][0] for pairs in actions]
        drawn.append((np.round(bboxes, 3)[:, 0].tolist(), names, ids))
        return frame

    def draw(count, *keyframes):
        annotator = Annotator(keyframes)
        for index in range(count):
            annotator.draw(index, np.zeros((32, 48, 3), np.uint8))
        return drawn

    monkeypatch.setattr(rendering, 'draw_detections', note)
    return draw


def test_person_of_two_keyframes_moves_in_a_straight_line(draw):
    start = keyframe(0, [[0, 0, 10, 20]], 'walk')
    nobody = keyframe(0, [])  # on the same frame, at short intervals
    drawn = draw(6, start, nobody, keyframe(4, [[4, 0, 14, 20]], 'wave'))
    assert drawn[:2] == [([0], ['walk'], [0]), ([1], ['walk'], [0])]
    assert drawn[2:] == [([left], ['wave'], [0]) for left in (2, 3, 4, 4)]


def test_others_are_shown_near_their_keyframe_only(draw):
    first, second = [[0, 0, 10, 20]], [[60, 0, 70, 20]]
    drawn = draw(11, keyframe(1, first), keyframe(5, []), keyframe(9, second))
    # Frames before the first keyframe are not drawn on; the second is another person.
    ids = [ids for _, _, ids in drawn]
    assert ids == [[0], [0], [], [], [], [], [1], [1], [1], [1]]


def test_persons_with_ids_keep_them(draw):
    boxes = [[0, 0, 10, 20], [1, 0, 11, 20]]
    near = keyframe(1, boxes, ids=[4, 7])  # to another id
    drawn = draw(
        4, keyframe(0, boxes, ids=[7, 4]), near, keyframe(3, boxes[:1], ids=[7])
    )
    assert [ids for _, _, ids in drawn] == [[7, 4], [4, 7], [7], [7]]
    assert [lefts[-1] for lefts, _, _ in drawn] == [1, 1, 0.5, 0]


@pytest.mark.parametrize('suffix', rendering.VIDEOS)
def test_rendered_video_keeps_frames_rate_and_size(tmp_path, suffix):
    video = write_video(tmp_path / 'a.mp4', frames=12, fps=12.5, size=(96, 64))
    detections, path = keyframe(0, [[20, 10, 60, 60]]), tmp_path / f'out{suffix}'
    persons = detections.bboxes, detections.actions
    render_video(video, [detections], path)
    videos = open_video(video), open_video(path)
    source, rendered = videos
    np.testing.assert_allclose(rendered.times, source.times, atol=1e-3)
    pictures = (reader.get_batch(range(12)) for reader in videos)
    for original, picture in zip(*pictures, strict=True):
        drawn = draw_detections(original, *persons, ids=[0])
        assert np.abs(picture.astype(int) - drawn).mean() < 12
        assert np.abs(picture.astype(int) - original).mean() > 12
    assert len(list(tmp_path.iterdir())) == 2
