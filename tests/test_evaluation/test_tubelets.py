"""Tubelets, linked and scored."""

import numpy as np
import pytest
from tube_data import (
    LEFT,
    RIGHT,
    TWO_VIDEOS,
    build,
    clips_of,
    evaluate_results,
    ground_truth,
    noisy,
    predict,
    score,
    still,
)

from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.results.dumps import DumpPredictions
from stmixer_mm.projects.diagnosis.offline import read_results


def tubelets(video_id, frames, *persons, num_labels=3):
    """A sample of persons (boxes (K, 4) in pixels, person scores, {label: score})."""
    middle, size = int(frames[len(frames) // 2]), (-1, len(frames))
    paths = ((path, actions) for path, _, actions in persons)
    sample = predict(video_id, middle, *paths, num_labels=num_labels)
    instances = sample['pred_instances']
    instances['bboxes'] = instances['bboxes'].reshape(*size, 4)
    instances['person_scores'] = np.reshape([person[1] for person in persons], size)
    return dict(sample, clip_frames=frames)


def follow_truth(truth, clip_len, step, start=1, random=None):
    """Tubelets of all true tubes, with noise if it is random."""
    samples = []
    for name, classes in truth['gttubes'].items():
        for frames in clips_of(truth['nframes'][name], clip_len, step, start):
            persons = []
            for label, tubes in classes.items():
                for tube in tubes:
                    boxes = {int(row[0]): row[1:] for row in tube}
                    presence = np.array([t in boxes for t in frames], float)
                    path = np.array([boxes.get(t, [0, 90, 9, 99]) for t in frames])
                    actions = {label: 0.9}
                    if random is not None:
                        presence = 0.8 * presence + random.uniform(0, 0.2, clip_len)
                        path = (path + random.randint(-4, 5, path.shape)).clip(0, 99)
                        actions = {label: random.rand(), random.randint(3): 0.3}
                    if presence.max() > 0.5:
                        persons.append((path, presence, actions))
            samples.append(tubelets(name, frames, *persons))
    return samples


@pytest.mark.parametrize(
    'clip_len, step, start', [(8, 1, -5), (8, 8, 1), (7, 3, -3), (50, 50, 1)]
)
def test_perfect_tubelets_score_exactly_one(clip_len, step, start):
    samples = follow_truth(TWO_VIDEOS, clip_len, step, start)
    thrs = dict(iou_thrs=(0.5, '0.5:0.95'))
    linkings = 'act', 'moc', 'multisports'
    runs = [(VideoMAPMetric, dict(thrs, linking=name)) for name in linkings]
    runs += [(TubeFrameMAPMetric, dict(nms=nms)) for nms in ('act', 'moc')]
    if step >= clip_len:
        runs.append((TubeFrameMAPMetric, {}))
    for metric_type, options in runs:
        metric = build(metric_type, TWO_VIDEOS, **options)
        assert set(score(metric, samples).values()) == {1}


@pytest.mark.parametrize(
    'metric_type, options',
    [
        (VideoMAPMetric, dict(linking=dict(min_length=5))),
        (TubeFrameMAPMetric, dict(nms='act')),
    ],
)
def test_order_padding_and_dumps_change_nothing(tmp_path, metric_type, options):
    truth, _ = noisy(0)
    samples = follow_truth(truth, 6, 3, -2, np.random.RandomState(1))

    def metric():
        return build(metric_type, truth, iou_thrs=(0.5, 0.3), **options)

    values = score(metric(), samples)
    assert 0.05 < next(iter(values.values())) < 0.95
    assert score(metric(), samples[::-1] + samples[:3]) == values
    dump = tmp_path / 'found.pkl'
    score(DumpPredictions(str(dump)), samples)
    assert evaluate_results([metric()], read_results(dump)) == values


def test_a_box_scores_as_its_person_is_there():
    truth = ground_truth({'v': {0: [still(2, 2, LEFT), still(3, 3, RIGHT)]}})
    frames = np.array([2, 3])
    persons = [
        (np.array([LEFT, LEFT]), [0.9, 0.3], {0: 0.5}),
        (np.array([LEFT, RIGHT]), [0, 0.5], {0: 0.8}),
    ]
    # 0.45 and 0.4 right, then 0.15 wrong; 0 is none.
    metric = build(TubeFrameMAPMetric, truth)
    assert set(score(metric, [tubelets('v', frames, *persons)]).values()) == {1}


def in_each_frame(sample, scores):
    return dict(sample, pred_instances=dict(sample['pred_instances'], scores=scores))


def test_scores_of_all_frames_alike_are_those_of_the_clip():
    samples = follow_truth(TWO_VIDEOS, 8, 4, random=np.random.RandomState(0))
    clip_scores = [sample['pred_instances']['scores'] for sample in samples]
    all_scores = [np.repeat(scores[:, None], 8, axis=1) for scores in clip_scores]
    alike = [*map(in_each_frame, samples, all_scores)]
    linking = dict(linking=dict(min_length=5, acting=0.05), score_thr=0.05)
    for metric_type, options in (VideoMAPMetric, linking), (TubeFrameMAPMetric, {}):
        metric = build(metric_type, TWO_VIDEOS, **options)
        assert score(metric, alike) == pytest.approx(score(metric, samples))


def test_one_person_does_one_action_after_the_other():
    """Frames 1 to 9 and 10 to 20; every second frame is seen."""
    truth = ground_truth({'v': {0: [still(1, 9, LEFT)], 1: [still(10, 20, LEFT)]}})
    samples = []
    for frames in (np.arange(1, 8, 2), np.arange(7, 14, 2), np.arange(14, 21, 2)):
        first = np.where(frames <= 9, 0.9, 0.1)
        scores = np.stack([0 * first, first, 1 - first, 0 * first], axis=1)[None]
        sample = tubelets('v', frames, (np.tile(LEFT, (4, 1)), np.ones(4), {}))
        samples.append(in_each_frame(sample, scores))
    linking = dict(min_length=5, acting=0.5)
    values = score(build(VideoMAPMetric, truth, linking=linking, iou_thrs=0.9), samples)
    assert values['video_mAP/overall@0.9'] == 1
    frames = build(TubeFrameMAPMetric, truth, nms='act')
    assert score(frames, samples)['frame_mAP/overall@0.5'] == 1


@pytest.mark.parametrize('start', [13, 15])
def test_frames_beyond_the_video_and_clips_of_other_lengths(start):
    truth = ground_truth({'v': {0: [still(1, 20, LEFT)]}}, nframes=20)
    samples = []
    for frames in (np.arange(1, 13), np.arange(start, start + 8)):
        person = np.tile(LEFT, (len(frames), 1)), np.ones(len(frames)), {0: 0.9}
        samples.append(tubelets('v', frames, person))
    metric = build(VideoMAPMetric, truth, iou_thrs=(0.99,), linking='act')
    assert set(score(metric, samples).values()) == {1}


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
