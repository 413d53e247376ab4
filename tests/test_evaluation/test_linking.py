import itertools

import literal_act
import numpy as np
import pytest
from mmaction.evaluation.functional import multisports_utils

from stmixer_mm.evaluation.functional.linking import (
    LINKINGS,
    Linking,
    Tubelets,
    label_action,
    suppress_tubelets,
    trim_tubes,
)
from stmixer_mm.evaluation.functional.tubelet_linking import link_tubelets
from stmixer_mm.evaluation.functional.tubes import join_tubes

LEFT, RIGHT = [0, 0, 9, 9], [50, 0, 59, 9]
SHORT = dict(min_length=1, tube_nms_iou=None)


def boxes_of(*rows):
    """Rows of sequence, frame, score, box."""
    sequences, frames, scores, bboxes = zip(*rows, strict=True)
    return Tubelets(
        np.array(sequences),
        np.array(frames)[:, None],
        np.array(bboxes, float)[:, None],
        np.array(scores, float),
    )


def shown(tubes):
    """[(sequence, score, frames, box scores)] of each tube."""
    ends = np.cumsum(tubes.lengths)
    rows = [slice(end - n, end) for end, n in zip(ends, tubes.lengths, strict=True)]
    return [
        (
            int(sequence),
            pytest.approx(score),
            tubes.frames[part].tolist(),
            pytest.approx(tubes.box_scores[part]),
        )
        for sequence, score, part in zip(
            tubes.sequences, tubes.scores, rows, strict=True
        )
    ]


def test_scores_differ_within_a_tube():
    scores = [0.2, 0.9, 0.4]
    rows = [(0, t, s, LEFT) for t, s in enumerate(scores, 1)]
    rows += [(0, t, s / 2, RIGHT) for t, s in enumerate(scores, 1)]
    assert shown(link_tubelets(boxes_of(*rows), Linking(**SHORT))) == [
        (0, (0.2 + 0.9 + 0.4) / 3, [1, 2, 3], scores),
        (0, (0.1 + 0.45 + 0.2) / 3, [1, 2, 3], [0.1, 0.45, 0.2]),
    ]


def test_the_best_tube_takes_the_best_box():
    # Both tubes lie on both boxes of frame 2; the better one, begun second, chooses.
    rows = [
        (0, 1, 0.5, [0, 0, 9, 9]),
        (0, 1, 0.6, [8, 0, 17, 9]),
        (0, 2, 0.3, [3, 0, 12, 9]),
        (0, 2, 0.4, [6, 0, 15, 9]),
    ]
    tubes = link_tubelets(boxes_of(*rows), Linking(**SHORT, nms=None))
    assert shown(tubes) == [
        (0, 0.5, [1, 2], [0.6, 0.4]),
        (0, 0.4, [1, 2], [0.5, 0.3]),
    ]


def test_a_gap_is_filled_and_does_not_count():
    moved = [4, 0, 13, 9]  # overlaps LEFT by 60 / 140
    rows = [(0, 1, 0.8, LEFT), (0, 5, 0.4, moved)]
    (tube,) = shown(tubes := link_tubelets(boxes_of(*rows), Linking(**SHORT)))
    assert tube == (0, 0.6, [1, 2, 3, 4, 5], [0.8, 0.7, 0.6, 0.5, 0.4])
    assert tubes.bboxes[:, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('end_after, num_tubes', [(3, 2), (4, 1)])
def test_a_tube_ends_so_many_frames_after_its_last_box(end_after, num_tubes):
    rows = [(0, 1, 0.8, LEFT), (0, 5, 0.4, LEFT), (0, 3, 0.5, RIGHT)]
    linking = Linking(**SHORT, end_after=end_after)
    tubes = shown(link_tubelets(boxes_of(*rows), linking))
    assert len(tubes) == num_tubes + 1


def test_boxes_too_far_apart_are_not_linked():
    rows = [(0, 1, 0.8, LEFT), (0, 2, 0.4, [7, 0, 16, 9])]  # 30 / 170
    assert len(link_tubelets(boxes_of(*rows), Linking(**SHORT)).scores) == 2
    linking = Linking(**SHORT, link_iou=30 / 170)
    assert len(link_tubelets(boxes_of(*rows), linking).scores) == 1


def test_short_and_weak_tubes_go():
    rows = [(0, t, 0.5, LEFT) for t in range(1, 16)]
    rows += [(1, t, 0.5, LEFT) for t in range(1, 15)]
    rows += [(2, t, 0.009, LEFT) for t in range(1, 20)]
    assert link_tubelets(boxes_of(*rows), LINKINGS['act']).sequences.tolist() == [0]
    linking = Linking(min_length=14, min_score=0.005)
    assert link_tubelets(boxes_of(*rows), linking).sequences.tolist() == [0, 1, 2]


def test_suppression_per_frame_and_sequence():
    near = [2, 0, 11, 9]  # 80 / 120 of LEFT
    rows = [
        (0, 1, 0.7, near),
        (0, 1, 0.9, LEFT),
        (0, 1, 0.5, RIGHT),
        (0, 2, 0.3, near),
        (1, 1, 0.2, near),
    ]
    hard = suppress_tubelets(boxes_of(*rows), Linking())
    assert hard.scores.tolist() == [0.9, 0.5, 0.2, 0.3]
    assert suppress_tubelets(boxes_of(*rows), Linking(top_k=1)).scores.tolist() == [
        0.9,
        0.2,
        0.3,
    ]
    soft = suppress_tubelets(boxes_of(*rows), Linking(nms='soft', nms_iou=0.6))
    np.testing.assert_allclose(soft.scores, [0.9, 0.5, 0.7 * (1 - 2 / 3), 0.2, 0.3])
    none = suppress_tubelets(boxes_of(*rows), Linking(nms=None, top_k=2))
    assert none.scores.tolist() == [0.9, 0.7, 0.2, 0.3]


def test_no_boxes_no_tubes():
    nothing = Tubelets(
        np.zeros(0, int), np.zeros((0, 2), int), np.zeros((0, 2, 4)), np.zeros(0)
    )
    for linking in (*LINKINGS.values(), Linking(trim_cost=1)):
        assert link_tubelets(nothing, linking).frames.shape == (0,)


def moving_persons(seed, num_sequences=3, num_frames=30):
    random = np.random.RandomState(seed)
    rows = []
    for sequence in range(num_sequences):
        place = random.randint(0, 60, (4, 2)).astype(float)
        size = random.randint(15, 40, (4, 2))
        for frame in range(1, num_frames + 1):
            place += random.randint(-4, 5, place.shape)
            for low, extent in zip(place, size, strict=True):
                if random.rand() < 0.8:
                    rows.append(
                        (sequence, frame, random.rand(), [*low, *(low + extent)])
                    )
    return boxes_of(*rows)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('end_after', [1, 3, 5])
def test_linking_is_that_of_the_loops(seed, end_after):
    boxes = moving_persons(seed)
    linking = Linking(
        end_after=end_after, min_length=4, link_iou=0.4, top_k=3, tube_nms_iou=None
    )
    tubes = link_tubelets(boxes, linking)
    scores = tubes.scores.round(9).tolist()
    found = {
        (sequence, score, tuple(frames))
        for (sequence, _, frames, _), score in zip(shown(tubes), scores, strict=True)
    }
    expected = set()
    for sequence in range(3):
        frames = {}
        for i in np.flatnonzero(boxes.sequences == sequence):
            item = (boxes.scores[i], tuple(boxes.bboxes[i, 0]))
            frames.setdefault(int(boxes.frames[i, 0]), []).append(item)
        for tube, score in literal_act.build_tubes(frames, linking):
            span = range(tube[0][0], tube[-1][0] + 1)
            expected.add((sequence, round(float(score), 9), tuple(span)))
    assert found == expected
    assert len(found) > 10


class MendedDataset(multisports_utils.Dataset):
    """Gives each box its own score; the host's gives all the one it met last."""

    def get_vid_dets(self):
        dets = {
            name: {
                frame: {k: np.empty((0, 5)) for k in range(len(self.labels))}
                for frame in range(1, self.nframes[name] + 1)
            }
            for name in self.video_list
        }
        for video, frame, label, score, *box in self.frm_alldets:
            of_frame = dets[self.video_list[int(video)]][int(frame)]
            row = np.array([[*box, score]])
            of_frame[int(label)] = np.concatenate([of_frame[int(label)], row])
        return dets


@pytest.mark.parametrize('seed', range(3))
def test_the_hosts_linking_with_its_scores_mended(monkeypatch, seed):
    boxes = moving_persons(seed)
    anno = dict(
        test_videos=[['v', 'w', 'x']],
        nframes=dict.fromkeys('vwx', 30),
        labels=['run'],
    )
    table = np.column_stack(
        [
            boxes.sequences,
            boxes.frames,
            np.zeros_like(boxes.frames),
            boxes.scores,
            boxes.bboxes[:, 0],
        ]
    )
    monkeypatch.setattr(multisports_utils, 'Dataset', MendedDataset)
    monkeypatch.setattr(multisports_utils, 'track', lambda items, **kwargs: items)
    host = multisports_utils.link_tubes(anno, table, len_thre=5)[0]
    linking = LINKINGS['multisports']
    tubes = link_tubelets(boxes, Linking(**{**vars(linking), 'min_length': 5}))
    ends = np.cumsum(tubes.lengths)
    ours = {
        ('vwx'[sequence], round(float(score), 6)): np.column_stack(
            [
                tubes.frames[end - n : end],
                tubes.bboxes[end - n : end],
                tubes.box_scores[end - n : end],
            ]
        )
        for sequence, score, n, end in zip(
            tubes.sequences, tubes.scores, tubes.lengths, ends, strict=True
        )
    }
    assert {(name, round(float(score), 6)) for name, score, _ in host} == set(ours)
    assert len(ours) == len(host) > 5
    for name, score, rows in host:
        np.testing.assert_allclose(ours[name, round(float(score), 6)], rows, atol=1e-4)


def test_order_of_boxes_and_other_sequences_do_not_matter():
    boxes = moving_persons(0)
    linking = Linking(min_length=4)
    whole = link_tubelets(boxes, linking)
    order = np.random.RandomState(1).permutation(len(boxes.scores))
    again = link_tubelets(Tubelets(*(field[order] for field in boxes)), linking)
    for first, second in zip(whole, again, strict=True):
        np.testing.assert_array_equal(first, second)
    alone = Tubelets(*(field[boxes.sequences == 1] for field in boxes))
    alone = link_tubelets(alone, linking)
    np.testing.assert_array_equal(alone.scores, whole.scores[whole.sequences == 1])
    assert len(alone.scores) > 1


def test_scaling_all_scores_links_alike():
    boxes = moving_persons(2)
    linking = Linking(min_length=4, min_score=0)
    half = link_tubelets(boxes._replace(scores=boxes.scores / 2), linking)
    whole = link_tubelets(boxes, linking)
    np.testing.assert_array_equal(half.frames, whole.frames)
    np.testing.assert_allclose(half.scores, whole.scores / 2)


@pytest.mark.parametrize('cost', [0, 0.3, 1, 3])
def test_labels_are_the_best_of_all(cost):
    random = np.random.RandomState(0)
    for _ in range(20):
        scores = random.rand(8)

        def energy(labels, scores=scores):
            labels = np.array(labels)
            gains = np.where(labels, scores, 1 - scores).sum()
            return gains - cost * (labels[1:] != labels[:-1]).sum()

        best = max(itertools.product([False, True], repeat=8), key=energy)
        assert label_action(scores, cost).tolist() == list(best)


def test_trimming_cuts_what_shows_nothing():
    scores = [0.1, 0.1, 0.9, 0.8, 0.1, 0.1, 0.1, 0.9, 0.9, 0.4, 0.9]
    rows = [[t, *LEFT, s] for t, s in enumerate(scores, 1)]
    tubes = join_tubes([4, 7], [np.array(rows), np.array(rows)[:2]], [0.5, 0.1])
    # A change of 0.5 pays for the three rows of 0.1, which gain 3 * 0.8 as background,
    # and not for the one of 0.4, which would gain 0.2 for two changes.
    assert shown(trim_tubes(tubes, 0.5)) == [
        (4, 0.85, [3, 4], [0.9, 0.8]),
        (4, 3.1 / 4, [8, 9, 10, 11], [0.9, 0.9, 0.4, 0.9]),
    ]
    boxes = boxes_of(*((4, t, s, LEFT) for t, s in enumerate(scores, 1)))
    linking = Linking(trim_cost=0.5, min_length=3)
    assert shown(link_tubelets(boxes, linking))[0][2] == [8, 9, 10, 11]


def test_constants_that_cannot_be():
    with pytest.raises(ValueError, match="nms='gaussian' is unknown"):
        Linking(nms='gaussian')
    for name, value, message in [
        ('end_after', 0, 'has end_after=0; write a whole number from 1 on'),
        ('trim_cost', -1, 'has trim_cost=-1; write a number from 0 on'),
        ('link_iou', 20, r'has link_iou=20; write a number in \[0, 1\]'),
        ('top_k', 2.5, 'has top_k=2.5; write a whole number'),
        ('min_length', '8', "has min_length='8'; write a whole number"),
        ('nms_iou', None, 'has nms_iou=None; write a number'),
    ]:
        with pytest.raises(ValueError, match=message):
            Linking(**{name: value})
    with pytest.raises(TypeError, match='iou'):
        Linking(iou=0.5)
