import pickle

import numpy as np
import pytest

from stmixer_mm.datasets.packing import (
    add_proposals,
    pack_persons,
    unpack_bboxes,
    unpack_persons,
)


@pytest.mark.parametrize('count', [0, 1, 3])
def test_packed_and_unpacked(count):
    rng = np.random.default_rng(0)
    persons = (
        rng.random((count, 4), dtype=np.float32),
        rng.integers(0, 2, (count, 5)).astype(bool),
        rng.integers(-9, 2**40, count),
    )
    unpacked = unpack_persons(pack_persons(*persons), 5)
    for before, after in zip(persons, unpacked, strict=True):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        assert np.array_equal(before, after)
        after[:] = 0  # may be written to


def test_packed_persons_pickle_to_little_more_than_their_numbers():
    persons = np.zeros((2, 4), np.float32), np.zeros((2, 80), bool), np.zeros(2, int)
    num_bytes = sum(array.nbytes for array in persons)
    assert len(pickle.dumps(pack_persons(*persons), protocol=4)) < num_bytes + 40
    assert len(pickle.dumps(persons, protocol=4)) > num_bytes + 150


def test_proposals_of_another_split(tmp_path):
    path = tmp_path / 'p.pkl'
    path.write_bytes(pickle.dumps({'a,0001': np.array([[0, 0, 1, 1]])}))
    settings = dict(score_thr=0.5, max_num=9)
    infos = [dict(img_key='a,0001'), dict(img_key='b,0001')]
    add_proposals(infos, str(path), **settings)
    found = [unpack_bboxes(info['proposals']).tolist() for info in infos]
    assert found == [[[0, 0, 1, 1]], []]
    with pytest.raises(
        ValueError,
        match=r"p.pkl has none of the 1 keyframes, .* 'b,0001', but keys like 'a,0001'",
    ):
        add_proposals(infos[1:], str(path), **settings)
