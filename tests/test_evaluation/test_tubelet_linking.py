"""Tubelets, linked and scored."""

import literal_act
import numpy as np
import pytest
from test_tube_metrics import (
    HEIGHT,
    LEFT,
    RIGHT,
    TWO_VIDEOS,
    WIDTH,
    build,
    ground_truth,
    noisy,
    predict,
    still,
)

from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.functional.linking import Linking, Tubelets
from stmixer_mm.evaluation.functional.tubelet_linking import (
    TubeletLinker,
    boxes_where_present,
    link_tubelets,
)
from stmixer_mm.evaluation.results.dumps import DumpPredictions
from stmixer_mm.evaluation.results.offline import evaluate_results, read_results

SCALE = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])


def clips_of(length, clip_len, step, start=1):
    """Frames (K,) of clips of a video, padded at both of its ends."""
    begins = range(start, length + 1, step)
    return [np.arange(b, b + clip_len).clip(1, length) for b in begins]


def moving_tubelets(seed, clip_len, step, start=1, num_frames=24):
    """[(clip's frames, boxes with NaN, scores)] of persons who come and go."""
    random = np.random.RandomState(seed)
    size = random.randint(15, 40, (5, 1, 2))
    place = np.cumsum(random.randint(-4, 5, (5, num_frames, 2)), axis=1)
    place += random.randint(0, 100, (5, 1, 2))
    tracks = np.concatenate([place, place + size], axis=2).astype(float)
    there = random.rand(5, num_frames) < 0.8
    clips = []
    for frames in clips_of(num_frames, clip_len, step, start):
        bboxes = tracks[:, frames - 1] + random.randint(-2, 3, (5, clip_len, 4))
        present = there[:, frames - 1] + random.uniform(0, 0.01, (5, clip_len))
        bboxes = boxes_where_present(frames, bboxes, present, 0.5)
        clips.append((frames, bboxes, random.rand(5)))
    return clips


def by_frame(frames, bboxes):
    return {
        int(t): tuple(box)
        for t, box in zip(frames, bboxes, strict=True)
        if not np.isnan(box[0])
    }


@pytest.mark.parametrize(
    'clip_len, step, start',
    [(1, 1, 1), (1, 3, 1), (4, 1, -2), (4, 2, 0), (4, 4, 1), (4, 6, -1), (30, 30, 1)],
)
@pytest.mark.parametrize('end_after', [1, 4])
def test_linking_is_that_of_the_loops(clip_len, step, start, end_after):
    linking = Linking(
        end_after=end_after,
        min_length=1,
        min_score=0,
        link_iou=0.4,
        top_k=4,
        tube_nms_iou=None,
    )
    by_sequence = [moving_tubelets(s, clip_len, step, start) for s in range(3)]
    rows, expected = [], []
    for sequence, clips in enumerate(by_sequence):
        literal = []
        for frames, bboxes, scores in clips:
            items = [by_frame(frames, one) for one in bboxes]
            literal.append((frames[0], list(zip(scores, items, strict=True))))
            rows += [
                (sequence, frames, *one) for one in zip(bboxes, scores, strict=True)
            ]
        for tube in literal_act.link_tubelets(literal, linking):
            of_frame = {}
            for score, boxes in tube:
                for t, box in boxes.items():
                    of_frame.setdefault(t, []).append((*box, score))
            means = {t: np.mean(boxes, axis=0) for t, boxes in of_frame.items()}
            score = np.mean([score for score, _ in tube])
            expected.append((sequence, round(float(score), 9), means))
    np.random.RandomState(0).shuffle(rows)
    fields = (np.array(field) for field in zip(*rows, strict=True))
    tubes = link_tubelets(Tubelets(*fields), linking)
    found = {}
    for number, end in enumerate(tubes.ends):
        part = slice(end - tubes.lengths[number], end)
        boxes = np.column_stack([tubes.bboxes, tubes.box_scores])[part]
        key = int(tubes.sequences[number]), round(float(tubes.scores[number]), 9)
        found[key] = dict(zip(tubes.frames[part].tolist(), boxes, strict=True))
    assert len(found) == len(expected) > 5
    for sequence, score, means in expected:
        ours = found[sequence, score]
        assert (min(ours), max(ours)) == (min(means), max(means))
        assert len(ours) == max(ours) - min(ours) + 1
        for t, box in means.items():
            np.testing.assert_allclose(ours[t], box, atol=1e-9)


def test_ids_are_final():
    clips = moving_tubelets(0, clip_len=4, step=4)
    linking = Linking(link_iou=0.4, end_after=1)

    def ids_of(clips):
        linker = TubeletLinker(linking)
        return [linker.extend(*clip).tolist() for clip in clips]

    whole = ids_of(clips)
    for length in range(len(clips)):
        assert ids_of(clips[:length]) == whole[:length]
    assert 5 < max(max(ids) for ids in whole) < 5 * len(clips) - 1


def test_a_repeated_frame_counts_once():
    """Twice on frame 1 the IoU is 1, in frame 2 it is 0."""
    linking = Linking(link_iou=0.6)
    first, second = np.array([[LEFT, LEFT, LEFT]]), np.array([[LEFT, LEFT, RIGHT]])
    frames = np.array([1, 1, 2])
    linker = TubeletLinker(linking)
    assert linker.extend(frames, first.astype(float), np.array([0.9])) == 0
    assert linker.extend(frames, second.astype(float), np.array([0.9])) == 1


def test_where_a_person_is():
    frames, bboxes = np.array([1, 1, 2, 3]), np.ones((3, 4, 4))
    scores = np.array([[0.6, 0.1, 0.4, 0.5], [0.1, 0.9, 0.2, 0.3], [0, 0, 0, 0]])
    shown = boxes_where_present(frames, bboxes, scores, 0.5)
    expected = [[1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 1]]
    assert (~np.isnan(shown[..., 0])).astype(int).tolist() == expected


def tubelets(video_id, frames, *persons, num_labels=3):
    """A sample of persons (boxes (K, 4) in pixels, person scores, {label: score})."""
    scores = np.zeros((len(persons), num_labels + 1))
    for row, (_, _, actions) in zip(scores, persons, strict=True):
        for label, score in actions.items():
            row[label + 1] = score
    bboxes = np.array([person[0] for person in persons], float)
    return dict(
        video_id=video_id,
        timestamp=int(frames[len(frames) // 2]),
        clip_frames=frames,
        pred_instances=dict(
            bboxes=bboxes.reshape(-1, len(frames), 4) / SCALE,
            person_scores=np.array([person[1] for person in persons]).reshape(
                -1, len(frames)
            ),
            scores=scores,
        ),
    )


def follow_truth(truth, clip_len, step, start=1, random=None):
    """Tubelets of all true tubes, with noise if it is random."""
    samples = []
    for name, classes in truth['gttubes'].items():
        for frames in clips_of(truth['nframes'][name], clip_len, step, start):
            persons = []
            for label, tubes in classes.items():
                for tube in tubes:
                    boxes = {int(row[0]): row[1:] for row in tube}
                    there = np.array([t in boxes for t in frames], float)
                    path = np.array([boxes.get(t, [0, 90, 9, 99]) for t in frames])
                    actions = {label: 0.9}
                    if random is not None:
                        there = 0.8 * there + random.uniform(0, 0.2, clip_len)
                        path = (path + random.randint(-4, 5, path.shape)).clip(0, 99)
                        actions = {label: random.rand(), random.randint(3): 0.3}
                    if there.max() > 0.5:
                        persons.append((path, there, actions))
            samples.append(tubelets(name, frames, *persons))
    return samples


def score(metric, samples):
    metric.process(None, samples)
    return metric.evaluate(len(samples))


@pytest.mark.parametrize(
    'clip_len, step, start',
    [(8, 1, -5), (8, 4, 1), (8, 8, 1), (7, 3, -3), (40, 40, 1), (50, 50, 1)],
)
def test_perfect_tubelets_score_exactly_one(clip_len, step, start):
    samples = follow_truth(TWO_VIDEOS, clip_len, step, start)
    metrics = [
        build(VideoMAPMetric, TWO_VIDEOS, iou_thrs=(0.5, '0.5:0.95'), linking=linking)
        for linking in ('act', 'moc', 'multisports')
    ]
    metrics += [
        build(TubeFrameMAPMetric, TWO_VIDEOS, nms=nms) for nms in ('act', 'moc')
    ]
    if step >= clip_len:
        metrics.append(build(TubeFrameMAPMetric, TWO_VIDEOS))
    for metric in metrics:
        assert set(score(metric, samples).values()) == {1}


@pytest.mark.parametrize(
    'metric_type, options',
    [
        (VideoMAPMetric, dict(linking=dict(min_length=5))),
        (TubeFrameMAPMetric, dict(nms='act')),
    ],
)
def test_order_ranks_padding_and_dumps_change_nothing(tmp_path, metric_type, options):
    truth, _ = noisy(0)
    samples = follow_truth(truth, 6, 3, -2, np.random.RandomState(1))

    def metric():
        return build(metric_type, truth, iou_thrs=(0.5, 0.3), **options)

    whole = score(metric(), samples)
    assert 0.05 < next(iter(whole.values())) < 0.95
    ranks = [metric(), metric()]
    for rank, one in enumerate(ranks):
        one.process(None, samples[rank::2] + samples[:3])
    results = [result for one in ranks for result in one.results]
    found = ranks[0].compute_metrics(results[::-1])
    assert found == {name.split('/')[1]: value for name, value in whole.items()}
    dump = tmp_path / 'found.pkl'
    score(DumpPredictions(str(dump)), samples)
    values, notes = evaluate_results([metric()], read_results(dump))
    assert values == whole
    assert not notes


def test_tubelets_of_one_frame_are_boxes():
    truth, samples = noisy(0)
    samples = [sample.to_dict() for sample in samples]
    linking = dict(linking=dict(min_length=5))
    for metric_type, options in ((VideoMAPMetric, linking), (TubeFrameMAPMetric, {})):
        whole = score(build(metric_type, truth, **options), samples)
        clips = []
        for sample in samples:
            found = sample['pred_instances']
            bboxes = found['bboxes'].numpy()[:, None]
            found = dict(
                bboxes=bboxes,
                person_scores=np.ones(bboxes.shape[:2]),
                scores=found['scores'],
            )
            frames = np.array([sample['timestamp']])
            clips.append(dict(sample, clip_frames=frames, pred_instances=found))
        assert score(build(metric_type, truth, **options), clips) == whole


def test_a_box_scores_as_its_person_is_there():
    truth = ground_truth({'v': {0: [still(2, 2, LEFT), still(3, 3, RIGHT)]}})
    frames = np.array([2, 3])
    found = [
        (np.array([LEFT, LEFT]), [0.9, 0.3], {0: 0.5}),
        (np.array([LEFT, RIGHT]), [0, 0.5], {0: 0.8}),
    ]
    # 0.45 and 0.4 right, then 0.15 wrong; 0 is none.
    metric = build(TubeFrameMAPMetric, truth, per_class=False)
    assert score(metric, [tubelets('v', frames, *found)]) == {
        'frame_mAP/overall@0.5': 1
    }
    metric.process(None, [tubelets('v', frames, *found)])
    scores = metric.found(metric.detections(metric.results), 1).scores
    np.testing.assert_allclose(scores, [0.45, 0.15, 0.4])


def in_each_frame(sample, scores=None):
    """The sample, with scores in each frame: its own, or others."""
    found = sample['pred_instances']
    if scores is None:
        clip_len = found['bboxes'].shape[1]
        scores = np.repeat(found['scores'][:, None], clip_len, axis=1)
    return dict(sample, pred_instances=dict(found, scores=scores))


def test_scores_of_all_frames_alike_are_those_of_the_clip():
    random = np.random.RandomState(0)
    samples = follow_truth(TWO_VIDEOS, 8, 4, random=random)
    alike = list(map(in_each_frame, samples))
    linking = dict(linking=dict(min_length=5, acting=0.05), score_thr=0.05)
    for metric_type, options in (VideoMAPMetric, linking), (TubeFrameMAPMetric, {}):
        first, second = (build(metric_type, TWO_VIDEOS, **options) for _ in range(2))
        assert score(first, alike) == pytest.approx(score(second, samples))


def test_one_person_does_one_action_after_the_other():
    """Frames 1 to 9 and 10 to 20; every second frame is seen."""
    truth = ground_truth({'v': {0: [still(1, 9, LEFT)], 1: [still(10, 20, LEFT)]}})
    samples = []
    for frames in (np.arange(1, 8, 2), np.arange(7, 14, 2), np.arange(14, 21, 2)):
        path = np.tile(LEFT, (4, 1))
        scores = np.zeros((1, 4, 4))
        scores[0, :, 1] = np.where(frames <= 9, 0.9, 0.1)
        scores[0, :, 2] = 1 - scores[0, :, 1]
        sample = tubelets('v', frames, (path, np.ones(4), {}))
        samples.append(in_each_frame(sample, scores))
    linking = dict(min_length=5, acting=0.5)
    whole = score(build(VideoMAPMetric, truth, linking=linking, iou_thrs=0.9), samples)
    assert whole['video_mAP/overall@0.9'] == 1
    frames = build(TubeFrameMAPMetric, truth, nms='act')
    assert score(frames, samples)['frame_mAP/overall@0.5'] == 1


def test_frames_beyond_the_video_and_clips_of_other_lengths():
    truth = ground_truth({'v': {0: [still(1, 20, LEFT)]}}, nframes=20)
    ones, found = np.ones(8), {0: 0.9}
    samples = [
        tubelets('v', np.arange(1, 13), (np.tile(LEFT, (12, 1)), np.ones(12), found)),
        tubelets('v', np.arange(13, 21), (np.tile(LEFT, (8, 1)), ones, found)),
    ]
    far = tubelets('v', np.arange(15, 23), (np.tile(LEFT, (8, 1)), ones, found))
    for last in (samples[1], far):
        metric = build(VideoMAPMetric, truth, iou_thrs=(0.99,), linking='act')
        clips = [samples[0], last]
        assert score(metric, clips) == {
            'video_mAP/overall@0.99': 1,
            'video_mAP/run@0.99': 1,
        }


def test_the_keyframe_of_a_tubelet(write_text):
    ann_file = write_text('a.csv', 'v,5,0,0,0.25,1,1,0', 'v,6,0.5,0,0.75,1,2,0')
    samples = []
    for time, box, label in ((5, [0, 0, 50, 100], 0), (6, [100, 0, 150, 100], 1)):
        path = np.tile(np.roll(RIGHT, 1), (4, 1))
        path[2] = box
        person = (path, [0, 0, 0.6, 0], {label: 0.9})
        sample = tubelets('v', np.arange(4) + 1, person, num_labels=2)
        samples.append(dict(sample, timestamp=time))
        del samples[-1]['clip_frames']  # seconds are all that is needed
    values = score(FrameMAPMetric(ann_file, num_classes=3), samples)
    assert set(values.values()) == {1}


@pytest.mark.parametrize('metric_type', [VideoMAPMetric, TubeFrameMAPMetric])
def test_faulty_tubelets_are_refused(metric_type):
    def sample(**changes):
        person = np.tile(LEFT, (4, 1)), np.ones(4), {0: 0.9}
        given = tubelets('v', np.arange(1, 5), person)
        found = given['pred_instances']
        found.update((k, v) for k, v in changes.items() if k in found)
        given.update((k, v) for k, v in changes.items() if k not in found)
        return given

    score(build(metric_type, TWO_VIDEOS), [sample()])
    nan = np.full((1, 4), np.nan)
    for changes, message in [
        (dict(person_scores=nan), 'v have person_scores that are not finite'),
        (dict(bboxes=np.tile(nan, (1, 4, 1))), 'v have bboxes that are not finite'),
        (dict(person_scores=np.ones((1, 3))), r'\(1, 3\) instead of \(n, K, 4\)'),
        (dict(scores=np.ones((1, 3, 4))), r'or \(n, K, classes\), and \(n, K\)'),
        (dict(scores=np.ones((1, 4, 2))), r'shape \(1, 4, 2\), but the metric'),
        (dict(scores=np.ones((1, 2))), r'shape \(1, 2\), but the metric'),
        (dict(clip_frames=None), 'tubelets of 4 frames and clip_frames=None; give'),
        (dict(clip_frames=np.arange(1, 4)), r'clip_frames=\[1, 2, 3\]; give the'),
        (dict(clip_frames=np.array([4, 3, 2, 1])), r'clip_frames=\[4, 3, 2, 1\]'),
        (dict(clip_frames=np.arange(4)), r'clip_frames=\[0, 1, 2, 3\]'),
        (dict(clip_frames=np.arange(1, 5) / 2), r'clip_frames=\[0.5, 1.0, 1.5, 2.0\]'),
        (dict(timestamp=9), r'with the timestamp \(9\) among them'),
    ]:
        with pytest.raises(ValueError, match=message):
            build(metric_type, TWO_VIDEOS).process(None, [sample(**changes)])
    mixed = build(VideoMAPMetric, TWO_VIDEOS)
    keyframe = predict('v', 20, (LEFT, {0: 0.9})).to_dict()
    # A keyframe is a clip of one frame.
    assert score(mixed, [sample(), keyframe])['video_mAP/overall@0.5'] == 0
