import csv
import pickle
import runpy
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny_stmixer import ROOT, write_project

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.projects.diagnosis import figures
from stmixer_mm.projects.diagnosis.judging import (
    ClassResult,
    class_results,
    judge_boxes,
    mean_ap,
    worst_keyframes,
)
from stmixer_mm.projects.diagnosis.keyframe_pictures import KeyframePictures
from stmixer_mm.registry import METRICS
from stmixer_mm.visualization.draw import draw_detections, enlarge, side_by_side


def predict(video_id, timestamp, bboxes, scores):
    instances = dict(
        bboxes=torch.as_tensor(bboxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.as_tensor(scores, dtype=torch.float32),
    )
    return dict(video_id=video_id, timestamp=timestamp, pred_instances=instances)


def collect(metric, samples):
    metric.process(None, samples)
    return metric.detections([list(map(dict, parts)) for parts in metric.results])


def random_frames(num_frames=20, num_labels=3):
    """Ground truth (k, 5) of label and box, and predictions near it, in [0, 1]."""
    random = np.random.RandomState(0)
    for frame in range(1, num_frames + 1):
        bboxes = np.sort(random.rand(3, 2, 2), axis=1).reshape(3, 4)
        labels = random.randint(num_labels, size=3)
        near = (np.repeat(bboxes, 2, axis=0) + random.normal(0, 0.04, (6, 4))).clip(
            0, 1
        )
        near = np.sort(near.reshape(6, 2, 2), axis=1).reshape(6, 4)
        scores = random.rand(6, num_labels + 1).round(1)  # with equal ones
        yield (
            frame,
            np.column_stack([labels, bboxes]),
            predict('v', frame, near, scores),
        )


@pytest.fixture
def tubes(tmp_path):
    """Writes ground truth of a video of 20 frames, 100 x 200 pixels."""

    def write(labels, of_label):
        truth = dict(
            labels=labels,
            train_videos=[[]],
            test_videos=[['v']],
            nframes=dict(v=20),
            resolution=dict(v=(100, 200)),
            gttubes=dict(v={label: [np.array(t)] for label, t in of_label.items()}),
        )
        path = tmp_path / 'truth.pkl'
        path.write_bytes(pickle.dumps(truth))
        return str(path)

    return write


@pytest.mark.parametrize('ap_mode', ['interpolated', 'act'])
@pytest.mark.parametrize('iou_thr', [0.3, 0.6])
def test_classes_have_the_ap_of_the_frame_metric(write_text, ap_mode, iou_thr):
    rows, samples = [], []
    for frame, gts, sample in random_frames(num_labels=4):
        rows += [
            f'v,{frame},{",".join(map(repr, box))},{int(label) + 1},0'
            for label, *box in gts.tolist()
            if label < 3
        ]
        samples.append(sample)
    metric = FrameMAPMetric(
        write_text('truth.csv', *rows),
        num_classes=5,  # of which one has no ground truth
        ap_mode=ap_mode,
        iou_thrs=(iou_thr, 0.9),
    )
    detections = collect(metric, samples[::-1])
    found = class_results(metric, detections)
    check_boxes(judge_boxes(metric, detections), samples)
    values = metric.evaluate(len(samples))
    check(found, {name: values[f'mAP/{name}'] for name in ('class 1', 'class 2')})
    assert mean_ap(found, 'gt') == pytest.approx(values['mAP/overall'])


@pytest.mark.parametrize(
    ('average', 'mean'), [('gt', 1 / 2), ('detected', 1), ('all', 1 / 4)]
)
def test_the_mean_is_that_of_the_metric(write_text, average, mean):
    """Four classes, of which two have ground truth and one of these a detection."""
    ann_file = write_text('truth.csv', 'v,1,0,0,1,1,1,0', 'v,1,0,0,1,1,2,0')
    metric = FrameMAPMetric(ann_file, num_classes=5, class_average=average)
    sample = predict('v', 1, [[0, 0, 1, 1]], [[0, 0.9, 0, 0, 0]])
    found = class_results(metric, collect(metric, [sample]))
    value = next(iter(metric.evaluate(1).values()))
    assert mean_ap(found, average) == value == pytest.approx(mean)


@pytest.mark.parametrize('source', [TubeFrameMAPMetric, VideoMAPMetric])
@pytest.mark.parametrize('protocol', ['act', 'multisports'])
def test_classes_have_the_ap_of_the_tube_metrics(tubes, source, protocol):
    gts, samples = {label: [] for label in range(3)}, []
    for frame, rows, sample in random_frames():
        for label in range(3):
            of_label = rows[rows[:, 0] == label][:1, 1:] * [200, 100, 200, 100]
            gts[label] += [[frame, *box] for box in of_label.tolist()]
        samples.append(sample)
    options = {} if source is TubeFrameMAPMetric else dict(linking=dict(min_length=1))
    metric = source(
        tubes(['run', 'out', 'sit'], gts),
        protocol=protocol,
        excluded_labels=['out'],
        iou_thrs=(0.05, 0.5),
        **options,
    )
    detections = collect(metric, samples)
    found = class_results(metric, detections)
    if source is TubeFrameMAPMetric:
        judged = judge_boxes(metric, detections)
        assert judged.gts_in_frame.sum() == sum(result.num_gts for result in found)
        check_boxes(judged, samples)
    values = metric.evaluate(len(samples))
    check(
        found, {name: values[f'{metric.prefix}/{name}@0.05'] for name in ('run', 'sit')}
    )


def check_boxes(judged, samples):
    """Each detection is one of its keyframe's in the predictions."""
    predicted = {
        keyframe_key(sample['video_id'], sample['timestamp']): sample['pred_instances']
        for sample in samples
    }
    assert len(judged.columns)
    for column, score, frame, bbox in zip(
        judged.columns, judged.scores, judged.frames, judged.bboxes_norm, strict=True
    ):
        instances = predicted[judged.keyframes[frame]]
        is_box = np.isclose(instances['bboxes'], bbox, atol=1e-6).all(axis=1)
        scores = instances['scores'].numpy()[is_box, column]
        assert scores.tolist() == [score]


def check(found, expected):
    aps = {result.name: result.ap for result in found}
    assert max(expected.values()) > 0.01
    for name, ap in expected.items():
        assert aps[name] == pytest.approx(ap, abs=1e-12)
    for result in found:
        assert (np.diff(result.scores) <= 0).all()


LEFT, RIGHT = [0, 0, 0.4, 1], [0.6, 0, 1, 1]


def test_costs_of_keyframes_by_hand(write_text):
    ann_file = write_text(
        'truth.csv', 'v,1,0,0,0.4,1,1,0', 'v,1,0.6,0,1,1,2,0', 'v,2,0,0,0.4,1,1,0'
    )
    metric = FrameMAPMetric(ann_file, num_classes=3)
    samples = [
        predict('v', 1, [LEFT, RIGHT], [[0, 0.75, 0], [0, 0.5, 0.25]]),
        predict('v', 2, [LEFT], [[0, 1, 0.25]]),
    ]
    judged = judge_boxes(metric, collect(metric, samples))
    (worst,) = worst_keyframes(judged, 5, score_thr=0.3)
    # Two are true, of which one is found with 0.75, and one at 0.5 is wrong; the
    # second keyframe costs 1 - 1, as its wrong one at 0.25 is not shown.
    assert worst == ('v,0001', 2 - 0.75 + 0.5, 2, 1, 1)
    assert [k.key for k in worst_keyframes(judged, 5, score_thr=0.2)] == [
        'v,0001',
        'v,0002',
    ]


def run(*args):
    path = ROOT / 'tools' / 'analyze_results.py'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(path), *map(str, args)])
        runpy.run_path(str(path), run_name='__main__')


def test_tables_and_pictures_of_keyframes(tmp_path, capsys):
    config = write_project(tmp_path)
    found = tmp_path / 'found.csv'
    found.write_text('0.mp4,1,0.1,0.1,0.5,0.9,1,0.9\n1.mp4,1,0.1,0.1,0.5,0.9,2,0.8\n')
    run(found, config, '--out', tmp_path / 'out', '--num-worst', 3)
    folder = tmp_path / 'out' / 'mAP'
    assert {path.name for path in folder.iterdir()} == {
        *('classes.csv', 'classes.png', 'precision_recall_01.png', 'scores_01.png'),
        *('keyframes.csv', 'keyframe_01_1.mp4_0001.jpg', 'keyframe_02_3.mp4_0001.jpg'),
        'keyframe_03_2.mp4_0001.jpg',
    }
    with open(folder / 'classes.csv') as file:
        worst, second = csv.DictReader(file)
    assert list(worst) == ['class', 'ap', 'gts', 'detected', 'right']
    assert list(worst.values()) == ['walk', '0.000000', '2', '1', '0']
    assert list(second.values()) == ['stand', '0.250000', '4', '1', '1']
    with open(folder / 'keyframes.csv') as file:
        first = next(csv.DictReader(file))
    assert (first['video'], float(first['cost'])) == ('1.mp4', pytest.approx(2.8))
    assert cv2.imread(str(folder / 'keyframe_01_1.mp4_0001.jpg')).shape[1] > 2 * 720
    assert '2 of 4' not in capsys.readouterr().err


@pytest.mark.parametrize('multilabel', [True, False])
def test_right_and_wrong_predictions_look_different(tmp_path, multilabel):
    cfg = Config.fromfile(write_project(tmp_path))
    cfg.test_dataloader.dataset.multilabel = multilabel
    init_default_scope('mmaction')
    found, elsewhere = [0.1, 0.1, 0.5, 0.9], [0.6, 0.1, 0.9, 0.9]
    scores = [[0, 0.9, 0.8], [0, 0.2, 0.7]]  # the 0.2 is not drawn
    metric = METRICS.build(cfg.test_evaluator)
    sample = predict('0.mp4', 1, [found, elsewhere], scores)
    judged = judge_boxes(metric, collect(metric, [sample]))
    pictures = KeyframePictures(cfg, judged)
    path = tmp_path / 'picture.png'
    assert pictures.draw('0.mp4,0001', path)
    picture = cv2.imread(str(path))[..., ::-1]

    clip = pictures._dataset[0]['inputs']
    frame, _ = enlarge(clip[:, 1].permute(1, 2, 0).numpy())
    size = 2 * frame.shape[1::-1]
    green, red = (139, 193, 162), (219, 144, 129)
    halves = (
        ([found], [[('stand', None)]], {}),
        (
            [found, elsewhere],
            [[('stand', 0.9), ('walk', 0.8)], [('walk', 0.7)]],
            dict(colors=[[green, red], [red]]),
        ),
    )
    drawn = [
        draw_detections(frame, np.multiply(boxes, size), actions, **colors)
        for boxes, actions, colors in halves
    ]
    headings = (
        [('ground truth', None)],
        [('predicted', None), ('1 right', green), ('2 wrong', red)],
    )
    assert np.array_equal(picture, side_by_side(drawn, headings))

    assert pictures.draw('1.mp4,0001', path)  # without a prediction
    assert not pictures.draw('9.mp4,0001', path)


@pytest.mark.parametrize(('most', 'ticks'), [(0, [1]), (7, [1, 2, 5]), (300, [1, 10])])
def test_counts_of_histograms_can_be_read(monkeypatch, tmp_path, most, ticks):
    drawn = []
    monkeypatch.setattr(figures, '_save', lambda *args: drawn.append(args))
    scores, right = np.full(most, 0.5), np.full(most, True)
    result = ClassResult('a', most, 1.0, scores, right)
    figures.draw_scores([result], tmp_path)
    (axes,) = drawn[0][0].axes
    low, high = axes.get_ylim()
    shown = [label for label in axes.get_yticks() if low <= label <= high]
    assert shown[: len(ticks)] == ticks


def test_a_dump_of_arrays_is_drawn_without_a_warning(tmp_path, recwarn):
    config, dump = write_project(tmp_path), tmp_path / 'found.pkl'
    sample = predict('0.mp4', 1, [[0.1, 0.1, 0.5, 0.9]], [[0, 0.9, 0.1]])
    arrays = {name: value.numpy() for name, value in sample['pred_instances'].items()}
    dump.write_bytes(pickle.dumps([dict(sample, pred_instances=arrays)], protocol=4))
    run(dump, config, '--out', tmp_path / 'out')
    assert list(tmp_path.glob('out/mAP/keyframe_*.jpg'))
    assert not [one for one in recwarn if 'not writable' in str(one.message)]


def test_keyframes_are_left_out_without_their_videos(tmp_path, capsys):
    config = write_project(tmp_path)
    (tmp_path / '2.mp4').unlink()
    found = tmp_path / 'found.csv'
    found.write_text('0.mp4,1,0.1,0.1,0.5,0.9,1,0.9\n')
    run(found, config, '--out', tmp_path / 'out')
    assert 'note: no keyframe is drawn: 1 of the 4 videos' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'mAP' / 'keyframes.csv').is_file()
    assert not list(tmp_path.glob('out/mAP/*.jpg'))


def test_tube_metrics_have_their_errors_drawn(tmp_path, tubes, write_text, capsys):
    tube = np.column_stack([np.arange(1, 19.0), np.tile([0, 0, 50, 100.0], (18, 1))])
    ann_file = tubes(['run', 'sit'], {0: tube})
    metrics = [
        dict(type=source, ann_file=ann_file)
        for source in ('TubeFrameMAPMetric', 'VideoMAPMetric')
    ]
    config = write_text('config.py', f'test_evaluator = {metrics}')
    rows = [f'v,{frame},0,0,0.25,1,{1 + (frame > 16)},0.9' for frame in range(1, 19)]
    found = write_text('found.csv', *rows)
    run(found, config, '--out', tmp_path / 'out', '--no-keyframes')
    out = capsys.readouterr().out
    assert "TubeFrameMAPMetric, IoU 0.5: mean AP 0.8889 (class_average='gt')" in out
    assert 'Error types, in percent' in out
    names = {path.name for path in (tmp_path / 'out').glob('*/*')}
    assert (tmp_path / 'out/frame_mAP/errors.png').is_file()
    assert (tmp_path / 'out/video_mAP/classes.png').is_file()
    assert not [name for name in names if name.endswith('.jpg')]

    with pytest.raises(SystemExit):
        options = ('--cfg-options', 'test_evaluator.1.prefix=frame_mAP')
        run(found, config, '--out', tmp_path / 'out', *options)
    assert 'have the same prefix' in capsys.readouterr().err


def test_metrics_of_others_are_named(tmp_path, write_text, capsys):
    config = write_text(
        'config.py', "test_evaluator = dict(type='mmaction.AccMetric', prefix='acc')"
    )
    with pytest.raises(SystemExit):
        run(write_text('found.csv', ''), config, '--out', tmp_path / 'out')
    assert 'AccMetric of test_evaluator' in capsys.readouterr().err
