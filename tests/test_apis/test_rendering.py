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
def shown(monkeypatch):
    """Drawings on each frame, as (boxes, actions, colors)."""
    calls = []

    def record(frame, bboxes, actions, *, ids, masks=None):
        calls.append((np.round(bboxes, 3).tolist(), actions, ids))
        return frame

    monkeypatch.setattr(rendering, 'draw_detections', record)
    return calls


def draw(count, keyframes):
    annotator = Annotator(keyframes)
    for index in range(count):
        annotator.draw(index, np.zeros((32, 48, 3), np.uint8))


def test_person_of_two_keyframes_moves_in_a_straight_line(shown):
    keyframes = [
        keyframe(0, [[0, 0, 10, 20]], 'walk'),
        keyframe(0, []),  # on the same frame, at short intervals
        keyframe(4, [[4, 0, 14, 20]], 'wave'),
    ]
    draw(6, keyframes)
    assert [boxes[0][0] for boxes, _, _ in shown] == [0, 1, 2, 3, 4, 4]
    labels = [actions[0][0][0] for _, actions, _ in shown]
    assert labels == ['walk'] * 2 + ['wave'] * 4
    assert [ids for _, _, ids in shown] == [[0]] * 6


def test_others_are_shown_near_their_keyframe_only(shown):
    first, second = [[0, 0, 10, 20]], [[60, 0, 70, 20]]
    keyframes = [keyframe(1, first), keyframe(5, []), keyframe(9, second)]
    # Frames before the first keyframe are not drawn on.
    draw(11, keyframes)
    assert [len(boxes) for boxes, _, _ in shown] == [1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert shown[-1][2] == [1]  # another person


def test_persons_with_ids_keep_them(shown):
    boxes = [[0, 0, 10, 20], [1, 0, 11, 20]]
    keyframes = [
        keyframe(0, boxes, ids=[7, 4]),
        keyframe(1, boxes, ids=[4, 7]),  # whatever is nearer
        keyframe(3, boxes[:1], ids=[7]),
    ]
    draw(4, keyframes)
    assert [ids for _, _, ids in shown] == [[7, 4], [4, 7], [7], [7]]
    assert [boxes[-1][0] for boxes, _, _ in shown] == [1, 1, 0.5, 0]


@pytest.mark.parametrize('suffix', rendering.VIDEOS)
def test_rendered_video_keeps_frames_rate_and_size(tmp_path, suffix):
    video = write_video(tmp_path / 'a.mp4', frames=12, fps=12.5, size=(96, 64))
    detections = keyframe(0, [[20, 10, 60, 60]])
    persons = detections.bboxes, detections.actions
    out = tmp_path / f'out{suffix}'
    render_video(video, [detections], out)
    source, rendered = open_video(video), open_video(out)
    assert len(rendered) == len(source)
    np.testing.assert_allclose(rendered.times, source.times, atol=1e-3)
    inds = range(len(source))
    pairs = zip(source.get_batch(inds), rendered.get_batch(inds), strict=True)
    for original, picture in pairs:
        drawn = draw_detections(original, *persons, ids=[0])
        assert np.abs(picture.astype(int) - drawn).mean() < 12
        assert np.abs(picture.astype(int) - original).mean() > 12
    assert len(list(tmp_path.iterdir())) == 2
