import literal_act
import numpy as np
import pytest
from mmaction.evaluation.functional import multisports_utils
from tube_data import clips_of

from stmixer_mm.evaluation.functional.linking import (
    Linking,
    Tubelets,
    overlap_weights,
    parse_linking,
)
from stmixer_mm.evaluation.functional.matching import take
from stmixer_mm.evaluation.functional.tubelet_linking import (
    TubeletLinker,
    boxes_where_present,
    link_tubelets,
)


def rows_of(tubes):
    """Rows of frame and box of each tube."""
    table = np.column_stack([tubes.frames, tubes.bboxes])
    return np.split(table, tubes.ends[:-1]) if len(tubes.ends) else []


def test_a_gap_is_filled_and_does_not_count():
    frames, scores = np.array([[1], [5]]), np.array([0.8, 0.4])
    bboxes = np.array([[[0.0, 0, 9, 9]], [[4, 0, 13, 9]]])  # IoU 60 / 140
    boxes = Tubelets(np.zeros(2, int), frames, bboxes, scores)
    linking = dict(min_length=1, tube_nms_iou=None)
    tubes = link_tubelets(boxes, Linking(**linking))
    assert tubes.scores.tolist() == [pytest.approx(0.6)]
    (filled,) = rows_of(tubes)
    assert filled[:, :2].T.tolist() == [[1, 2, 3, 4, 5], [0, 1, 2, 3, 4]]
    # Of the frames after its last box in which a tube goes on, this is one too many.
    assert len(link_tubelets(boxes, Linking(**linking, end_after=3)).scores) == 2


def test_where_clips_overlap_boxes_count_by_a_window():
    """Two clips, half apart, of a person at 0 and at 8: it moves from one to other."""
    frames = np.array([[1, 2, 3, 4], [3, 4, 5, 6]])
    bboxes = np.array([0.0, 8])[:, None, None] + np.tile([0.0, 0, 49, 49], (2, 4, 1))
    tubelets = Tubelets(np.zeros(2, int), frames, bboxes, np.ones(2))
    # sin^2 of 5/8, 7/8 and 1/8, 3/8 of pi: shares of a half-way pair sum to 1.
    later = np.sin(np.pi * np.array([1, 3]) / 8) ** 2
    for overlap, middle in dict(equal=[4, 4], hann=8 * later).items():
        linking = Linking(min_length=1, link_iou=0.1, end_after=1, overlap=overlap)
        forwards, backwards = (
            rows_of(link_tubelets(take(tubelets, order), linking))
            for order in ([0, 1], [1, 0])
        )
        np.testing.assert_array_equal(forwards, backwards)
        np.testing.assert_allclose(forwards[0][:, 1], [0, 0, *middle, 8, 8])
        assert overlap_weights(1, overlap) == 1


def moving_tubelets(seed, clip_len, step, start=1, num_frames=24):
    """[(clip's frames, boxes with NaN, scores)] of persons who come and go."""
    random = np.random.RandomState(seed)
    size = random.randint(15, 40, (5, 1, 2))
    place = np.cumsum(random.randint(-4, 5, (5, num_frames, 2)), axis=1)
    place += random.randint(0, 100, (5, 1, 2))
    tracks = np.concatenate([place, place + size], axis=2).astype(float)
    presence = random.rand(5, num_frames) < 0.8
    clips = []
    for frames in clips_of(num_frames, clip_len, step, start):
        bboxes = tracks[:, frames - 1] + random.randint(-2, 3, (5, clip_len, 4))
        present = presence[:, frames - 1] + random.uniform(0, 0.01, (5, clip_len))
        bboxes = boxes_where_present(frames, bboxes, present, 0.5)
        clips.append((frames, bboxes, random.rand(5)))
    return clips


def gather(by_sequence):
    """The tubelets of the clips of some sequences, in any order."""
    rows = [
        (sequence, frames, *tubelet)
        for sequence, clips in enumerate(by_sequence)
        for frames, *fields in clips
        for tubelet in zip(*fields, strict=True)
    ]
    np.random.RandomState(0).shuffle(rows)
    return Tubelets(*map(np.array, zip(*rows, strict=True)))


def by_score(tubes):
    """Rows of frame and box of each tube, by its sequence and score."""
    keys = zip(tubes.sequences.tolist(), tubes.scores.round(6).tolist(), strict=True)
    return dict(zip(keys, rows_of(tubes), strict=True))


class MendedDataset(multisports_utils.Dataset):
    """Gives each box its own score; the host's gives all the one it met last."""

    def get_vid_dets(self):
        table, detections = np.array(self.frm_alldets), {}
        for number, name in enumerate(self.video_list):
            detections[name] = {}
            for frame in range(1, self.nframes[name] + 1):
                rows = table[(table[:, :2] == (number, frame)).all(axis=1)]
                detections[name][frame] = {0: rows[:, [4, 5, 6, 7, 3]]}
        return detections


def test_the_hosts_linking_with_its_scores_mended(monkeypatch):
    boxes = gather([moving_tubelets(seed, clip_len=1, step=1) for seed in range(3)])
    boxes = take(boxes, ~np.isnan(boxes.bboxes[:, 0, 0]))
    sequences, frames, bboxes, scores = boxes
    truth = dict(test_videos=['vwx'], nframes=dict.fromkeys('vwx', 24), labels=['run'])
    columns = sequences, frames, np.zeros_like(frames), scores, bboxes[:, 0]
    monkeypatch.setattr(multisports_utils, 'Dataset', MendedDataset)
    monkeypatch.setattr(multisports_utils, 'track', lambda items, **kwargs: items)
    host = multisports_utils.link_tubes(truth, np.column_stack(columns), len_thre=5)[0]
    linking = parse_linking(dict(base='multisports', min_length=5))
    ours = by_score(link_tubelets(boxes, linking))
    assert len(ours) == len(host) > 5
    for name, score, rows in host:
        our_rows = ours['vwx'.index(name), round(float(score), 6)]
        np.testing.assert_allclose(our_rows, rows[:, :5], atol=1e-4)


def by_frame(frames, bboxes):
    return {
        int(t): tuple(box)
        for t, box in zip(frames, bboxes, strict=True)
        if not np.isnan(box[0])
    }


@pytest.mark.parametrize(
    'clip_len, step, start', [(1, 1, 1), (1, 3, 1), (4, 2, 0), (4, 6, -1), (30, 30, 1)]
)
@pytest.mark.parametrize('end_after', [0, 4])
def test_linking_is_that_of_the_loops(clip_len, step, start, end_after):
    rules = dict(min_length=1, min_score=0, tube_nms_iou=None, link_iou=0.4, top_k=4)
    linking = Linking(end_after=end_after, **rules)
    by_sequence = [moving_tubelets(s, clip_len, step, start) for s in range(3)]
    ours, number = by_score(link_tubelets(gather(by_sequence), linking)), 0
    for sequence, clips in enumerate(by_sequence):
        literal = []
        for frames, bboxes, scores in clips:
            items = [by_frame(frames, path) for path in bboxes]
            literal.append((frames[0], list(zip(scores, items, strict=True))))
        for tube in literal_act.link_tubelets(literal, linking):
            of_frame = {}
            for _, boxes in tube:
                for t, box in boxes.items():
                    of_frame.setdefault(t, []).append(box)
            score = np.mean([score for score, _ in tube])
            rows = ours[sequence, round(float(score), 6)]
            number += 1
            assert rows[:, 0].tolist() == [*range(min(of_frame), max(of_frame) + 1)]
            for t, *box in rows.tolist():
                if t in of_frame:
                    np.testing.assert_allclose(box, np.mean(of_frame[t], axis=0))
    assert len(ours) == number > 5


def test_ids_are_final():
    clips = moving_tubelets(0, clip_len=4, step=4)
    linking = Linking(link_iou=0.4, end_after=1)

    def ids_of(clips):
        linker = TubeletLinker(linking)
        return [linker.extend(*clip).tolist() for clip in clips]

    all_ids = ids_of(clips)
    for length in range(len(clips)):
        assert ids_of(clips[:length]) == all_ids[:length]
    assert 5 < max(max(ids) for ids in all_ids) < 5 * len(clips) - 1


def test_where_a_person_is():
    frames, bboxes = np.array([1, 1, 2, 3]), np.ones((3, 4, 4))
    scores = np.array([[0.6, 0.1, 0.4, 0.5], [0.1, 0.9, 0.2, 0.3], [0, 0, 0, 0]])
    shown = boxes_where_present(frames, bboxes, scores, 0.5)
    expected = [[1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 1]]
    assert (~np.isnan(shown[..., 0])).astype(int).tolist() == expected
