"""From detections to an annotator and to a dataset."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import test_annotate
from detections import keyframe
from tiny_stmixer import write_video

from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.errors import UserError
from stmixer_mm.pictures import encode
from stmixer_mm.projects.annotate.convert import convert_annotations
from stmixer_mm.projects.annotate.cvat import read_cvat, write_cvat
from stmixer_mm.structures import VideoDetections

ACTIONS = ('stand', 'walk', 'wave')


def video(keyframes, source='a.mp4'):
    size = dict(fps=10.0, width=48, height=32, total_frames=60)
    return VideoDetections(source=source, keyframes=keyframes, classes=ACTIONS, **size)


def random_keyframe(random, number, ids, *, has_masks=False):
    corners = np.sort(random.uniform(0, 1, (len(ids), 2, 2)), axis=1)
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 0.2).clip(0, 1)
    actions = [
        [(ACTIONS[label], score) for label, score in enumerate(scores) if score > 0.4]
        or [('stand', 0.4)]
        for scores in random.uniform(0, 1, (len(ids), 3))
    ]
    bboxes = corners.reshape(-1, 4) * (48, 32, 48, 32)
    masks = [encode(random.rand(32, 48) > 0.5) for _ in ids] if has_masks else None
    return keyframe(number, 10 * number, bboxes, actions, ids, masks=masks)


@pytest.mark.parametrize(('form', 'has_ids'), [('cvat', True), ('coco', False)])
def test_from_detections_to_an_annotator_and_to_a_dataset(form, has_ids, tmp_path):
    """Number 7 is away at 2 s and 3 s; there is no person at 5 s."""
    path = write_video(tmp_path / 'clip.mp4', frames=60, size=(48, 32))
    random, keyframes = np.random.RandomState(0), []
    for number, ids in enumerate([(7, 3), (3, 7), (3,), (4, 3), (7,), ()]):
        ids = ids if has_ids else [None] * len(ids)
        keyframes.append(random_keyframe(random, number, ids, has_masks=not has_ids))
    file = tmp_path / dict(cvat='found.xml', coco='found.json')[form]
    video(keyframes, str(path)).save(file, form)
    numbers = {action: number for number, action in enumerate(ACTIONS, start=1)}
    (tmp_path / 'action_list.pbtxt').write_text(format_label_map(numbers))
    options = dict(out=tmp_path / 'train.csv', videos=str(tmp_path))
    annotated = convert_annotations([str(file)], **options).keyframes
    tracks = {}
    for written in keyframes:
        people = annotated.pop(('clip.mp4', written.time_s))
        assert len(people) == len(written.persons)
        bboxes = [np.multiply(same.bbox_norm, (48, 32, 48, 32)) for same in people]
        for person in written.persons:
            gaps = np.abs(np.subtract(bboxes, person.bbox)).max(axis=1)
            (same,) = (people[row] for row in np.flatnonzero(gaps < 0.011))
            done = {numbers[action.action] for action in person.actions}
            assert ({*same.action_ids}, same.mask) == (done, person.mask)
            if has_ids:
                assert tracks.setdefault(person.id, same.person_id) == same.person_id
    assert not annotated
    assert len({*tracks.values()}) == len(tracks)


def test_detections_in_the_form_of_a_task(tmp_path):
    """A select has the action with the highest score, or its value for none."""
    task, path = tmp_path / 'task.xml', tmp_path / 'found.xml'
    task.write_text(test_annotate.cvat())
    actions = [[('walk', 0.9), ('wave', 0.8), ('stand', 0.7)], [('wave', 0.5)]]
    boxes = np.tile([0, 0, 16, 24], (2, 1))
    detections = video([keyframe(0, 0, boxes, actions, (0, 1))])
    write_cvat(detections, path, like=str(task))
    written, expected = (
        read_cvat(str(file), file.read_bytes(), Counter()) for file in (path, task)
    )
    assert written.declared == expected.declared
    assert [track[0].attributes for track in written.videos[0].tracks] == [
        dict(wave='true', pose='walk'),
        dict(wave='true', pose='__undefined__'),
    ]
    with pytest.raises(UserError):
        write_cvat(replace(detections, classes=['jump']), path, like=str(task))


def test_keyframes_beyond_the_video_are_not_written(tmp_path):
    first, beyond = (
        replace(random_keyframe(np.random.RandomState(0), number, (1,)), ahead_s=0.5)
        for number in (1, 7)
    )
    video([first, beyond]).save(tmp_path / 'all', 'coco')
    video([first]).save(tmp_path / 'within', 'coco')
    assert (tmp_path / 'all').read_text() == (tmp_path / 'within').read_text()
