"""From detections to an annotator and to a dataset."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from detections import keyframe
from tiny_stmixer import write_video

from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.projects.annotate.convert import convert_annotations, read_file
from stmixer_mm.projects.annotate.segmentation import read_segmentation
from stmixer_mm.structures import VideoDetections, encode

ACTIONS = ('stand', 'walk', 'wave')


def video(keyframes, source='a.mp4'):
    size = dict(fps=10.0, width=48, height=32, total_frames=60)
    return VideoDetections(source=source, keyframes=keyframes, classes=ACTIONS, **size)


def random_keyframe(random, number, ids):
    corners = np.sort(random.uniform(0, 1, (len(ids), 2, 2)), axis=1)
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 0.2).clip(0, 1)
    actions = [
        [(ACTIONS[one], score) for one, score in enumerate(scores) if score > 0.4]
        or [('stand', 0.4)]
        for scores in random.uniform(0, 1, (len(ids), 3))
    ]
    bboxes = corners.reshape(-1, 4) * (48, 32, 48, 32)
    return keyframe(number, 10 * number, bboxes, actions, ids)


@pytest.mark.parametrize(('form', 'has_ids'), [('cvat', True), ('coco', False)])
def test_from_detections_to_an_annotator_and_to_a_dataset(form, has_ids, tmp_path):
    """Number 7 is away at 2 s and 3 s; there is no person at 5 s."""
    path = write_video(tmp_path / 'clip.mp4', frames=60, size=(48, 32))
    random = np.random.RandomState(0)
    persons = [(7, 3), (3, 7), (3,), (4, 3), (7,), ()]
    if not has_ids:
        persons = [[None] * len(ids) for ids in persons]
    found = video(
        [random_keyframe(random, *one) for one in enumerate(persons)], str(path)
    )
    file = tmp_path / dict(cvat='found.xml', coco='found.json')[form]
    found.save(file, form)
    ids = {action: number for number, action in enumerate(ACTIONS, start=1)}
    (tmp_path / 'action_list.pbtxt').write_text(format_label_map(ids))
    summary = convert_annotations(
        [str(file)], out=tmp_path / 'train.csv', videos=str(tmp_path)
    )
    assert (len(summary.keyframes), len(summary.persons)) == (6, 8)
    dataset = KeyframeDataset(
        ann_file='train.csv',
        label_file='action_list.pbtxt',
        empty_keyframes_file='train_empty.csv',
        data_root=str(tmp_path),
        data_prefix=dict(img=''),
        num_classes=4,
        pipeline=[],
    )
    samples = sorted(
        (dataset.get_data_info(n) for n in range(len(dataset))),
        key=lambda sample: sample['timestamp'],
    )
    tracks = {}
    for sample, one in zip(samples, found.keyframes, strict=True):
        assert sample['timestamp'] == one.time_s
        order = np.lexsort(one.bboxes.T)
        bboxes = sample['gt_bboxes'] * (48, 32, 48, 32)
        there = np.lexsort(bboxes.T)
        np.testing.assert_allclose(bboxes[there], one.bboxes[order], atol=0.011)
        for person, row in zip(order, there, strict=True):
            labels = np.flatnonzero(sample['gt_labels'][row])
            assert {*labels} == {ids[label] for label, _ in one.actions[person]}
            if has_ids:
                track = sample['entity_ids'][row]
                assert tracks.setdefault(one.ids[person], track) == track
    assert len({*tracks.values()}) == len(tracks)


def test_keyframes_beyond_the_video_are_not_written(tmp_path):
    random = np.random.RandomState(0)
    foretold = [
        replace(random_keyframe(random, number, (1,)), ahead_s=0.5) for number in (1, 7)
    ]
    for name, keyframes in (('all', foretold), ('within', foretold[:1])):
        video(keyframes).save(tmp_path / name, 'coco')
    assert (tmp_path / 'all').read_text() == (tmp_path / 'within').read_text()


def test_masks_are_written_and_read_again(tmp_path):
    drawn = np.zeros((2, 32, 48), bool)
    drawn[0, 4:20, 2:10] = drawn[1, 10:30, 20:40] = True
    bboxes, actions = [[2, 4, 10, 20], [20, 10, 40, 30]], [[('walk', 0.9)], []]
    found = keyframe(1.0, 10, bboxes, actions, masks=[*map(encode, drawn)])
    video([found]).save(tmp_path / 'a.json', 'coco')
    (read,) = read_file(str(tmp_path / 'a.json'), Counter()).videos
    kept = [read_segmentation(track[0].segmentation, (32, 48)) for track in read.tracks]
    assert kept == found.masks
