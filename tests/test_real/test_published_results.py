"""Published detections and annotation, evaluated."""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.structures import InstanceData
from run_tool import run_tool

from stmixer_mm.datasets.annotations.tube_annotations import read_tube_annotations
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.frame_map_metric import FrameMAPMetric
from stmixer_mm.evaluation.metrics.tube_frame_map_metric import TubeFrameMAPMetric
from stmixer_mm.projects.diagnosis.offline import feed, read_results

REAL_DATA = os.environ.get('STMIXER_REAL_DATA')
pytestmark = pytest.mark.skipif(not REAL_DATA, reason='STMIXER_REAL_DATA is not set')
SPACE, UCF = Path(REAL_DATA or '', 'space'), Path(REAL_DATA or '', 'ucf101_24')
DETECTIONS = SPACE / 'SLOWFAST_8x8_R50_detections_test.csv'


def test_published_detections_of_slowfast_get_their_published_score(tmp_path):
    with DETECTIONS.open(newline='') as file, (tmp_path / 'x.csv').open('w') as out:
        for *columns, logit in csv.reader(file):
            out.write(f'{",".join(columns)},{1 / (1 + math.exp(-float(logit)))!r}\n')
    metric = FrameMAPMetric(ann_file=str(SPACE / 'ava_test_gt.csv'), num_classes=81)
    feed(metric, read_results(tmp_path / 'x.csv'))
    values = metric.compute_metrics(metric.results)
    assert round(values['overall'], 4) == 0.4302
    with (SPACE / 'SLOWFAST_8x8_R50_ap_per_class_test.csv').open(newline='') as file:
        published = {
            int(row['action_id']): float(row['ap50']) for row in csv.DictReader(file)
        }
    compared = {key: ap for key, ap in published.items() if not math.isnan(ap)}
    assert len(compared) == 41
    for action, ap in compared.items():
        assert values[f'class {action}'] == pytest.approx(ap, abs=1e-3)


def test_logits_are_refused_with_what_to_do():
    with pytest.raises(UserError, match=r'line 1: .*score is -16\.7542.* exp\(-s\)'):
        read_results(DETECTIONS)


def test_the_corrected_annotation_of_ucf101_24_converts(tmp_path):
    files = UCF / 'pyannot.pkl', UCF / 'testlist01.txt', tmp_path / 'GT.pkl'
    run_tool('data/ucf101_24/convert', *files)
    truth = read_tube_annotations(tmp_path / 'GT.pkl')
    tubes = {
        video: [tube for group in classes.values() for tube in group]
        for video, classes in truth.gttubes.items()
    }
    (test_videos,) = truth.test_videos
    assert (len(tubes), sum(map(len, tubes.values()))) == (3194, 4458)
    assert sum(len(tube) for video in test_videos for tube in tubes[video]) == 170580
    for clip in UCF.glob('*.mp4'):
        (video,) = (name for name in truth.nframes if name.endswith(f'/{clip.stem}'))
        assert len(open_video(clip)) == truth.nframes[video]

    metric = TubeFrameMAPMetric(ann_file=str(tmp_path / 'GT.pkl'))
    for video in test_videos:
        metric.process(None, perfect_samples(truth, video))
    assert metric.compute_metrics(metric.results)['overall@0.5'] == 1.0


def perfect_samples(truth, video):
    """The ground truth of a video as detections, frame by frame."""
    height, width = truth.resolution[video]
    samples = []
    for frame in range(1, truth.nframes[video] + 1):
        boxes, scores = [], []
        for label, group in truth.gttubes[video].items():
            for tube in group:
                for row in tube[tube[:, 0] == frame]:
                    boxes.append(row[1:] / np.tile([width, height], 2))
                    scores.append(np.eye(25)[label + 1])
        instances = InstanceData(
            bboxes=np.reshape(boxes, (-1, 4)), scores=np.reshape(scores, (-1, 25))
        )
        samples.append(dict(video_id=video, timestamp=frame, pred_instances=instances))
    return samples
