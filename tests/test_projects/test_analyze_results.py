import csv
import pickle

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from run_tool import run_and_fail, run_tool
from tiny_stmixer import write_project
from tube_data import build, ground_truth, noisy, still

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.projects.diagnosis.judging import (
    class_results,
    judge_boxes,
    mean_ap,
    worst_keyframes,
)
from stmixer_mm.projects.diagnosis.keyframe_pictures import KeyframePictures
from stmixer_mm.registry import METRICS
from stmixer_mm.visualization.draw import draw_detections, enlarge, side_by_side

LEFT, RIGHT = [0, 0, 0.4, 1], [0.6, 0, 1, 1]


def predict(video_id, timestamp, bboxes, scores):
    found = dict(bboxes=np.float32(bboxes), scores=np.float32(scores))
    return dict(video_id=video_id, timestamp=timestamp, pred_instances=found)


def collect(metric, samples):
    metric.process(None, samples)
    return metric.detections([list(map(dict, parts)) for parts in metric.results])


def check(metric, samples, thr=''):
    """Classes have the AP of the metric, and boxes are those of the predictions."""
    detections = collect(metric, samples)
    found = class_results(metric, detections)
    values = {
        name.split('/')[1]: v for name, v in metric.evaluate(len(samples)).items()
    }
    assert mean_ap(found, 'gt') == pytest.approx(values[f'overall{thr}'])
    assert mean_ap(found, 'gt') > 0.01
    for result in found:
        assert (np.diff(result.scores) <= 0).all()
        if result.num_gts:
            assert result.ap == values[f'{result.name}{thr}']
    if isinstance(metric, VideoMAPMetric):
        return
    judged = judge_boxes(metric, detections)
    assert judged.gts_in_frame.sum() == sum(result.num_gts for result in found)
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
        assert score in instances['scores'][is_box, column]


@pytest.mark.parametrize('ap_mode', ['interpolated', 'act'])
def test_classes_have_the_ap_of_the_frame_metric(write_text, ap_mode):
    random, rows, samples = np.random.RandomState(0), [], []
    for frame in range(1, 21):
        bboxes = np.sort(random.rand(3, 2, 2), axis=1).reshape(3, 4)
        for box, action in zip(bboxes.tolist(), random.randint(1, 4, 3), strict=True):
            rows.append(f'v,{frame},{",".join(map(repr, box))},{action},0')
        near = np.repeat(bboxes, 2, axis=0) + random.normal(0, 0.04, (6, 4))
        near = np.sort(near.clip(0, 1).reshape(6, 2, 2), axis=1).reshape(6, 4)
        scores = random.rand(6, 5).round(1)  # with equal ones
        samples.append(predict('v', frame, near, scores))
    options = dict(num_classes=5, ap_mode=ap_mode, iou_thrs=(0.3, 0.9))
    metric = FrameMAPMetric(write_text('truth.csv', *rows), **options)
    check(metric, samples[::-1])


@pytest.mark.parametrize('protocol', ['act', 'multisports'])
@pytest.mark.parametrize('metric_type', [TubeFrameMAPMetric, VideoMAPMetric])
def test_classes_have_the_ap_of_the_tube_metrics(metric_type, protocol):
    truth, samples = noisy(0)
    options = dict(protocol=protocol, excluded_labels=['class 1'], iou_thrs=(0.3, 0.5))
    check(build(metric_type, truth, **options), samples, '@0.3')


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
    worst = worst_keyframes(judged, 5, score_thr=0.2)
    assert [keyframe.key for keyframe in worst] == ['v,0001', 'v,0002']


def test_tables_and_pictures_of_keyframes(tmp_path, capsys, recwarn):
    config, found, out = write_project(tmp_path), tmp_path / 'f.pkl', tmp_path / 'out'
    box = [[0.1, 0.1, 0.5, 0.9]]
    samples = (
        predict('0.mp4', 1, box, [[0, 0.9, 0]]),
        predict('1.mp4', 1, box, [[0, 0, 0.8]]),
    )
    found.write_bytes(pickle.dumps(list(samples)))
    run_tool('analyze_results', found, config, '--out', out, '--num-worst', 3)
    folder = out / 'mAP'
    assert {path.name for path in folder.iterdir()} == {
        *('classes.csv', 'classes.png', 'precision_recall_01.png'),
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
    assert not [one for one in recwarn if 'not writable' in str(one.message)]
    # Without a video, all but the pictures of keyframes is there.
    (tmp_path / '2.mp4').unlink()
    run_tool('analyze_results', found, config, '--out', tmp_path / 'again')
    assert 'note: no keyframe is drawn' in capsys.readouterr().err
    assert (tmp_path / 'again' / 'mAP' / 'keyframes.csv').is_file()
    assert not list(tmp_path.glob('again/mAP/*.jpg'))


def test_right_and_wrong_predictions_look_different(tmp_path):
    cfg = Config.fromfile(write_project(tmp_path))
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


def test_tube_metrics_have_their_errors_drawn(tmp_path, write_text, capsys):
    truth = ground_truth({'v': {0: [still(1, 18, [0, 0, 50, 100])]}}, nframes=20)
    (tmp_path / 'truth.pkl').write_bytes(pickle.dumps(truth))
    metrics = [
        dict(type=source, ann_file=str(tmp_path / 'truth.pkl'))
        for source in ('TubeFrameMAPMetric', 'VideoMAPMetric')
    ]
    config = write_text('config.py', f'test_evaluator = {metrics}')
    rows = [f'v,{frame},0,0,0.25,1,{1 + (frame > 16)},0.9' for frame in range(1, 19)]
    command = 'analyze_results', write_text('found.csv', *rows)
    run_tool(*command, config, '--out', tmp_path / 'out', '--no-keyframes')
    out = capsys.readouterr().out
    assert "TubeFrameMAPMetric, IoU 0.5: mean AP 0.8889 (class_average='gt')" in out
    assert 'Error types, in percent' in out
    assert (tmp_path / 'out/frame_mAP/errors.png').is_file()
    assert (tmp_path / 'out/video_mAP/classes.png').is_file()
    assert not list((tmp_path / 'out').glob('*/*.jpg'))
    options = ('--cfg-options', 'test_evaluator.1.prefix=frame_mAP')
    other = write_text('other.py', "test_evaluator = dict(type='mmaction.AccMetric')")
    run_and_fail(capsys, *command, config, '--out', tmp_path, *options)
    run_and_fail(capsys, *command, other, '--out', tmp_path)
