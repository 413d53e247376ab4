"""Boxes of persons from a file; bad ones: test_bad_input_of_projects.py."""

import pickle

import numpy as np
import pytest
import supervision

from stmixer_mm.projects.roi.proposals import (
    KeyframeProposalDataset,
    read_proposals,
    write_proposals,
)

ROWS = 'a.mp4,2,0.1,0.2,0.3,0.4,1,0', 'b.mp4,1.5,0,0,1,1,2,0'
PIPELINE = [
    dict(type='OpenVideo'),
    dict(type='SampleKeyframeClip', clip_len=2, frame_interval=2),
    dict(type='DecodeFrames'),
    dict(type='Resize', scale=(-1, 24)),
    dict(type='Flip', flip_ratio=1),
    dict(type='FormatShape', input_format='NCTHW', collapse=True),
    dict(type='PackActionInputs'),
]


@pytest.fixture
def build(tmp_path, write_text, write_video):
    """Build a dataset of ROWS with a file of proposals."""
    for name in 'ab':
        write_video(f'{name}.mp4', size=(64, 48))
    write_text('ann.csv', *ROWS)

    def build(content, pipeline=()):
        (tmp_path / 'p.pkl').write_bytes(pickle.dumps(content))
        options = dict(data_root=str(tmp_path), num_classes=4, proposal_file='p.pkl')
        return KeyframeProposalDataset('ann.csv', pipeline, **options)

    return build


def test_proposals_come_from_a_file(build):
    """Boxes with a high score and the best one; none where the file has none."""
    scores = [[0.8], [0.95], [0.9]]
    bboxes = [[0, 0, 0.5, 0.5], [0.1, 0, 0.5, 1], [0.2, 0, 0.5, 1]]
    boxes = np.hstack([bboxes, scores])
    first, second = build({'a.mp4,0002': boxes, 'b.mp4,0001.5': boxes[:1]})
    np.testing.assert_allclose(first['proposals'], boxes[1:, :4])
    np.testing.assert_allclose(second['proposals'], boxes[:1, :4])
    first, second = build({'a.mp4,0002': boxes[:, :4]})
    np.testing.assert_allclose(first['proposals'], boxes[:, :4])
    assert second['proposals'].shape == (0, 4)


def test_proposals_follow_the_frames_to_the_sample(build):
    first, second = build({'a.mp4,0002': np.array([[0.25, 0, 0.5, 1]])}, PIPELINE)
    bboxes = first['data_samples'].proposals.bboxes
    np.testing.assert_allclose(bboxes, [[32 - 16, 0, 32 - 8, 24]])
    assert second['data_samples'].proposals.bboxes.shape == (0, 4)


def test_persons_of_other_detectors_are_proposals(tmp_path):
    """Boxes beyond the frame are cut."""
    bboxes = np.array([[16.0, 12, 32, 48], [-8, 0, 64, 24]])
    persons = supervision.Detections(bboxes, confidence=np.array([0.9, 0.5]))
    nobody, path = supervision.Detections.empty(), str(tmp_path / 'p.pkl')
    write_proposals(path, {'a.mp4,0002': persons, 'a.mp4,0003': nobody}, size=(48, 64))
    proposals = read_proposals(path, ['a.mp4,0002'])
    rows = [[0.25, 0.25, 0.5, 1, 0.9], [0, 0, 1, 0.5, 0.5]]
    np.testing.assert_allclose(proposals['a.mp4,0002'], rows, rtol=1e-6)
    assert len(proposals['a.mp4,0003']) == 0
