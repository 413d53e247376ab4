import csv
import pickle
from copy import deepcopy

import numpy as np
import pytest
from run_tool import run_tool
from tiny_stmixer import write_project
from tube_data import build, ground_truth, noisy, still

from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.projects.diagnosis.keyframes import rate_keyframes
from stmixer_mm.projects.diagnosis.report import class_rows


def predict(video_id, timestamp, bboxes, scores):
    instances = dict(bboxes=np.float32(bboxes), scores=np.float32(scores))
    return dict(video_id=video_id, timestamp=timestamp, pred_instances=instances)


def read_rows(path):
    return csv.DictReader(path.read_text().splitlines())


def collect(metric, samples):
    metric.process(None, samples)
    return metric.detections(deepcopy(metric.results))


@pytest.mark.parametrize('metric_type', [TubeFrameMAPMetric, VideoMAPMetric])
def test_classes_have_the_ap_of_the_metric(metric_type):
    truth, samples = noisy(0)
    metric = build(metric_type, truth, iou_thrs=(0.3, 0.5))
    detections = collect(metric, samples)
    values = metric.evaluate(len(samples))
    _, *rows = class_rows(metric, metric.match_classes(detections))
    for name, ap, _, detected, right in rows:
        assert ap == values[f'{metric.prefix}/{name}@0.3'] > 0.01
        assert detected >= right > 0


def test_rated_boxes_are_those_predicted():
    truth, samples = noisy(0)
    metric = build(TubeFrameMAPMetric, truth)
    detections = collect(metric, samples)
    keyframes = rate_keyframes(metric, detections, score_thr=0.3)
    _, *rows = class_rows(metric, metric.match_classes(detections))
    assert sum(keyframe.num_gts for keyframe in keyframes) == sum(
        row[2] for row in rows
    )
    predicted = {(s['video_id'], s['timestamp']): s['pred_instances'] for s in samples}
    for keyframe in keyframes:
        video, timestamp = keyframe.key.split(',')
        bboxes, scores = predicted[video, int(timestamp)].values()
        for box in keyframe.boxes:
            is_box = np.isclose(bboxes, box.bbox_norm, atol=1e-6).all(axis=1)
            assert box.score in scores[is_box, int(box.class_name[-1]) + 1]


def test_costs_of_keyframes_by_hand(write_text):
    truth = 'v,1,0,0,0.4,1,1,0', 'v,1,0.6,0,1,1,2,0', 'v,2,0,0,0.4,1,1,0'
    metric = FrameMAPMetric(write_text('truth.csv', *truth), num_classes=3)
    boxes = [[0, 0, 0.4, 1], [0.6, 0, 1, 1]]
    samples = [
        predict('v', 1, boxes, [[0, 0.75, 0], [0, 0.5, 0.25]]),
        predict('v', 2, boxes[:1], [[0, 1, 0.25]]),
    ]
    worst, second = rate_keyframes(metric, collect(metric, samples), score_thr=0.3)
    # Two are true, of which one is found with 0.75, and one at 0.5 is wrong; the
    # second keyframe costs 1 - 1, as its wrong one at 0.25 does not count.
    assert (worst.key, worst.cost, second.cost) == ('v,0001', 2 - 0.75 + 0.5, 0)
    assert (worst.num_gts, worst.num_right, len(worst.boxes)) == (2, 1, 2)


def test_tables_and_pictures_of_keyframes(tmp_path, capsys):
    config, dump, out = write_project(tmp_path), tmp_path / 'f.pkl', tmp_path / 'out'
    bboxes = [[0.1, 0.1, 0.5, 0.9]]
    scores = {'0.mp4': [[0, 0.9, 0]], '1.mp4': [[0, 0, 0.8]]}
    samples = [predict(video, 1, bboxes, row) for video, row in scores.items()]
    dump.write_bytes(pickle.dumps(samples))
    run_tool('analyze_results', dump, config, '--out', out, '--num-worst', 3)
    pictures = sorted(path.name for path in (out / 'mAP').glob('*.jpg'))
    worst = enumerate((1, 3, 2), start=1)
    assert pictures == [f'keyframe_0{rank}_{n}.mp4_0001.jpg' for rank, n in worst]
    assert (out / 'mAP' / 'classes.csv').read_text().splitlines() == [
        'name,ap,gts,detected,right',
        'walk,0.000000,2,1,0',
        'stand,0.250000,4,1,1',
    ]
    first = next(read_rows(out / 'mAP' / 'keyframes.csv'))
    assert (first['video'], float(first['cost'])) == ('1.mp4', pytest.approx(2.8))
    # Without a video, all but the pictures of keyframes is there.
    (tmp_path / '1.mp4').unlink()
    run_tool('analyze_results', dump, config, '--out', tmp_path / 'again')
    assert 'note: not all keyframes are drawn' in capsys.readouterr().err
    assert (tmp_path / 'again' / 'mAP' / 'keyframes.csv').is_file()


def test_tube_metrics_have_their_errors_told(tmp_path, write_text, capsys):
    truth = ground_truth({'v': {0: [still(1, 18, [0, 0, 50, 100])]}}, nframes=20)
    (tmp_path / 'truth.pkl').write_bytes(pickle.dumps(truth))
    names, ann_file = ('TubeFrameMAPMetric', 'VideoMAPMetric'), f'{tmp_path}/truth.pkl'
    metrics = [dict(type=name, ann_file=ann_file) for name in names]
    config = write_text('config.py', f'test_evaluator = {metrics}')
    rows = [f'v,{frame},0,0,0.25,1,{1 + (frame > 16)},0.9' for frame in range(1, 19)]
    command = 'analyze_results', write_text('found.csv', *rows), config
    run_tool(*command, '--out', tmp_path / 'out', '--no-keyframes')
    assert 'Error types' in capsys.readouterr().out
    assert (tmp_path / 'out/video_mAP/classes.csv').is_file()
    *_, mean = read_rows(tmp_path / 'out/frame_mAP/errors.csv')
    assert float(mean['ap']) == pytest.approx(16 / 18)
    assert float(mean['missed']) == pytest.approx(2 / 18)
