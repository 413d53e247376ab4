"""Boxes of persons from a file."""

import os
import pickle

import numpy as np
import pytest

from stmixer_mm.errors import UserError
from stmixer_mm.projects.roi.proposals import KeyframeProposalDataset

ROWS = (
    'a,2,0.1,0.2,0.3,0.4,1,0',
    'a,2,0.1,0.2,0.3,0.4,3,0',
    'a,2,0.5,0.5,0.9,1.0,2,1',
    'b,1.5,0,0,1,1,2,0',
)


@pytest.fixture
def build(tmp_path, write_text):
    """Build a dataset of ROWS with the videos a.mp4 and b.mp4 (empty files)."""
    for name in 'ab':
        (tmp_path / f'{name}.mp4').touch()
    write_text('ann.csv', *ROWS)

    def build(**kwargs):
        defaults = dict(
            ann_file='ann.csv', pipeline=[], data_root=str(tmp_path), num_classes=4
        )
        return KeyframeProposalDataset(**{**defaults, **kwargs})

    return build


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content))
    return path.name


def test_proposals_come_from_a_file(build, tmp_path):
    """Like the host's, but nobody where the file has nothing."""
    boxes = np.array(
        [[0, 0, 0.5, 0.5, 0.8], [0.1, 0, 0.5, 1, 0.95], [0.2, 0, 0.5, 1, 0.9]]
    )
    file = write_pickle(tmp_path / 'p.pkl', {'a,0002': boxes, 'b,0001.5': boxes[:1]})
    first, second = build(proposal_file=file)
    np.testing.assert_allclose(first['proposals'], boxes[1:, :4])
    np.testing.assert_allclose(second['proposals'], boxes[:1, :4])  # the best one
    file = write_pickle(tmp_path / 'p.pkl', {'a,0002': boxes[:, :4]})
    first, second = build(proposal_file=file)
    np.testing.assert_allclose(first['proposals'], boxes[:, :4])
    assert second['proposals'].shape == (0, 4)


def test_proposals_follow_the_frames_to_the_sample(build, tmp_path, write_video):
    write_video('a.mp4', size=(64, 48))
    write_video('b.mp4', size=(64, 48))
    found = np.array([[0.25, 0, 0.5, 1]])
    file = write_pickle(tmp_path / 'p.pkl', {'a,0002': found})
    pipeline = [
        dict(type='OpenVideo'),
        dict(type='SampleKeyframeClip', clip_len=2, frame_interval=2),
        dict(type='DecodeFrames'),
        dict(type='Resize', scale=(-1, 24)),
        dict(type='Flip', flip_ratio=1),
        dict(type='FormatShape', input_format='NCTHW', collapse=True),
        dict(type='PackActionInputs'),
    ]
    first, second = build(proposal_file=file, pipeline=pipeline)
    bboxes = first['data_samples'].proposals.bboxes
    np.testing.assert_allclose(bboxes, [[32 - 16, 0, 32 - 8, 24]])
    assert second['data_samples'].proposals.bboxes.shape == (0, 4)


class Evil:
    def __reduce__(self):
        return os.mkdir, ('made_by_a_pickle',)


BOX = np.array([[0, 0, 1, 1, 0.5]])


@pytest.mark.parametrize(
    'content',
    [
        {'a,0002': BOX * np.nan},
        {'a,0002': BOX[:, [2, 3, 0, 1]]},
        {'a,0002': BOX * 64},
        {'a,0002': BOX[:, :3]},
        {'a,0002': 'x'},
        [BOX],
        {'c,0001': BOX},
        Evil(),
    ],
)
def test_a_faulty_file_ends_in_one_sentence(build, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    file = write_pickle(tmp_path / 'p.pkl', content)
    with pytest.raises(UserError, match=r'p.pkl[^\n]*\.$'):
        build(proposal_file=file)
    assert not (tmp_path / 'made_by_a_pickle').exists()
