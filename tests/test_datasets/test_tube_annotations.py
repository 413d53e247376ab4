import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from tiny_tubes import NAMES, RUN_1, RUN_2, SIT, gttubes, truth, tube

from stmixer_mm.datasets.annotations.tube_annotations import read_tube_annotations
from stmixer_mm.errors import UserError


@pytest.fixture
def read_truth(tmp_path):
    """Read what a file with this value, or of these bytes, has."""

    def read_truth(value, protocol=2):
        path = tmp_path / 'gt.pkl'
        raw = value if isinstance(value, bytes) else pickle.dumps(value, protocol)
        path.write_bytes(raw)
        return read_tube_annotations(path)

    return read_truth


@pytest.mark.parametrize('protocol', [0, 2, pickle.HIGHEST_PROTOCOL])
def test_what_is_written_is_read(read_truth, protocol):
    tubes = defaultdict(list)
    tubes[np.int64(1)].append(np.asfortranarray(tube(2, 9, (1, 0, 10, 9), (1, 0))))
    written = truth(
        nframes=OrderedDict({name: np.int64(20) for name in NAMES}),
        resolution=dict.fromkeys(NAMES, np.array([240, 320])),
        labels=np.array(['run', 'sit']),
        **gttubes(**{SIT: tubes}),
    )
    annotations = read_truth(written, protocol)
    assert annotations.labels == ('run', 'sit')
    assert annotations.train_videos == ((RUN_1, SIT), (RUN_2,))
    assert annotations.nframes == dict.fromkeys(NAMES, 20)
    assert annotations.resolution == dict.fromkeys(NAMES, (240, 320))
    for name, classes in written['gttubes'].items():
        np.testing.assert_equal(annotations.gttubes[name], dict(classes))


def test_a_pickle_of_python_2(read_truth):
    row = np.array([7, 0, 1, 2, 3], '<f4')
    raw = repr(row.tobytes())[1:]  # Python 2's text of bytes
    array = (
        "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        "(I1\n(I1\nI5\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR"
        f"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS{raw}\ntb"
    )
    video = "S'v\\xe9'\n"
    text = (
        "(dS'labels'\n(lS'run'\nas"
        "S'train_videos'\n(l(las"
        f"S'test_videos'\n(l(l{video}aas"
        f"S'nframes'\n(d{video}I9\nss"
        f"S'resolution'\n(d{video}(I240\nI320\ntss"
        f"S'gttubes'\n(d{video}(dI0\n(l{array}asss."
    )
    annotations = read_truth(text.encode())
    assert annotations.test_videos == (('v\xe9',),)
    assert annotations.gttubes['v\xe9'][0][0].tolist() == [[7, 0, 1, 2, 3]]


@pytest.mark.parametrize('name', ['_codecs\nencode', 'numpy.core.multiarray\nscalar'])
def test_a_file_cannot_change_what_reads_it(read_truth, name):
    # BUILD with (None, {'value': list}) sets attributes of what the name stands for.
    attack = f'c{name}\n(N(dVvalue\nc__builtin__\nlist\nstb.'.encode()
    with pytest.raises(UserError, match=r'gt.pkl'):
        read_truth(attack)
    assert read_truth(truth(nframes=dict.fromkeys(NAMES, np.int64(2))))


def test_what_is_accepted_on_purpose(read_truth):
    # Gaps, beyond nframes, outside the picture, without area, no split.
    rows = [[3, 0, 0, 9, 9], [9, -5, 0, 999, 9], [70, 4, 4, 4, 4]]
    tubes = gttubes(**{RUN_1: {0: [np.array(rows)]}, SIT: {}})
    value = truth(**tubes, train_videos=[], test_videos=[[SIT]])
    assert read_truth(value).gttubes[RUN_1][0][0].tolist() == rows
