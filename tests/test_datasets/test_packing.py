import pickle

import numpy as np
import pytest

from stmixer_mm.datasets.packing import pack_persons, unpack_persons


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
