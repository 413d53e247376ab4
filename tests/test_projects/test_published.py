"""Results in the forms of published projects, written as their code writes them."""

import pickle

import numpy as np
import pytest
from bad_input import check_content
from mmaction.evaluation.functional import multisports_utils
from tube_data import SCALE, build, ground_truth, noisy, still

from stmixer_mm.evaluation import TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.results.offline import evaluate_results, read_results
from stmixer_mm.projects import published  # noqa: F401

GTTUBES = {0: [still(1, 18, [0, 0, 50, 100])], 1: [still(3, 20, [100, 0, 150, 100])]}
TRUTH = ground_truth({'v': GTTUBES}, labels=['run', 'sit'], nframes=20)
# Perfect detections in the forms of MultiSports.
TABLE = np.array(
    [
        *([0, frame, 0, 0.9, 0, 0, 50, 100] for frame in range(1, 19)),
        *([0, frame, 1, 0.8, 100, 0, 150, 100] for frame in range(3, 21)),
    ],
    dtype=np.float32,
)
ROWS, OTHER = np.split(
    np.column_stack([TABLE[:, [1, 4, 5, 6, 7]], np.full(len(TABLE), 0.5)]), 2
)
TUBES = {0: [('v', np.float32(0.9), ROWS)], 1: [('v', 0.8, OTHER)]}


def evaluate(path, truth=TRUTH, **options):
    linking = dict(min_score=0)
    metrics = [
        build(TubeFrameMAPMetric, truth, **options),
        build(VideoMAPMetric, truth, linking=linking),
    ]
    return evaluate_results(metrics, read_results(path))


@pytest.fixture
def write(tmp_path):
    """A pickle of Python 2, with a name."""

    def write(content, name='found.pkl'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content, protocol=2))
        return path

    return write


def test_frame_detections(write):
    """All rows count, whatever their score, and in any order."""
    low = (TABLE * [1, 1, 1, 1e-3, 1, 1, 1, 1])[::-1]
    for content in (TABLE, list(TABLE), low):
        values = evaluate(write(content))
        assert 'video_mAP/overall@0.5:0.95' in values
        assert set(values.values()) == {1}


def test_frame_detections_are_those_of_the_published_evaluator(write):
    truth, samples = noisy(0)
    truth['test_videos'] = [['w', 'v', 'x']]
    rows = [
        ['wvx'.index(one['video_id']), one['timestamp'], label, scores[label + 1], *box]
        for one in samples
        for box, scores in zip(*one['pred_instances'].values(), strict=True)
        for box in [np.sort((box * SCALE).reshape(2, 2), axis=0).ravel()]
        for label in np.flatnonzero(scores[1:])
    ]
    table = np.array(rows, dtype=np.float32)
    values = evaluate(write(table), truth, protocol='multisports')
    host = multisports_utils.frameAP(truth, table, 0.5, print_info=False)
    assert 100 * values['frame_mAP/overall@0.5'] == pytest.approx(host)
    assert 5 < host < 95


@pytest.mark.parametrize('folder', [False, True])
def test_published_tubes(write, folder):
    def run(content):
        if not folder:
            return evaluate(write(content))
        pairs = {
            label: [[rows, score] for video, score, rows in found if video == 'v']
            for label, found in content.items()
        }
        return evaluate(write(pairs, 'folder/v_tubes.pkl').parent)

    # Rows after the end of the video count, as in the scripts; other videos do not.
    longer = np.vstack([OTHER, [21, 0, 0, 9, 9, 1], [9e15, 0, 0, 9, 9, 1]])
    found = {0: [('w', 1, ROWS), *TUBES[0]], 1: [('v', 0.8, longer)]}
    assert run(found)['video_mAP/overall@0.5:0.95'] == pytest.approx((1 + 0.9) / 2)
    # Frames may be left out at will, and so may the scores of the boxes.
    bare = {
        label: [(video, score / 1e3, rows[[0, *range(2, 18)], :5])]
        for label, [(video, score, rows)] in TUBES.items()
    }
    assert run(bare)['video_mAP/overall@0.5:0.95'] == pytest.approx(0.9)
    # ACT's evaluation suppresses tubes: 5 of 18 frames of a better one are too few.
    for number, ap in ((5, 1 / 4), (6, 0 if folder else 1 / 4)):
        found = {0: [('v', 0.8, ROWS), ('v', 0.9, ROWS[:number])], 1: []}
        assert run(found)['video_mAP/run@0.5'] == ap


def changed(column, value):
    table = TABLE.astype(float)
    table[0, column] = value
    return table


BAD_PICKLES = [
    *(TABLE[:, :7], changed(1, 0), changed(6, -9), changed(0, 1), changed(2, 2)),
    *({}, {0: [(ROWS, 0.9)]}, {'run': TUBES[0]}, {2: TUBES[0]}),
    *({0: [('v', 0.9, ROWS[::-1])]}, {0: [('v', 9, ROWS)]}),
]


@pytest.mark.parametrize('content', BAD_PICKLES, ids=range(len(BAD_PICKLES)))
def test_faulty_pickles(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    check_content(tmp_path / 'found.pkl', content, evaluate)


def test_a_folder_without_tubes_of_a_video(write):
    path = write({0: []}, 'w_tubes.pkl')
    with pytest.raises(ValueError, match='v_tubes.pkl'):
        evaluate(path.parent)
