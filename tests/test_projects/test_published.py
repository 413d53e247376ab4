"""Results in the forms of published projects, written as their code writes them."""

import os
import pickle
import re
import runpy
from functools import partial

import numpy as np
import pytest
from bad_input import check_content, is_sentence
from literal_act import area, box_iou, right_of_voc
from mmaction.evaluation.functional import multisports_utils
from run_tool import ROOT
from tube_data import (
    SCALE,
    build,
    evaluate_results,
    frame_detections,
    ground_truth,
    noisy,
    still,
)

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.projects.diagnosis.offline import feed, read_results

GTTUBES = {0: [still(1, 18, [0, 0, 50, 100])], 1: [still(3, 20, [100, 0, 150, 100])]}
TRUTH = ground_truth({'v': GTTUBES}, labels=['run', 'sit'], nframes=20)
# Perfect detections in the forms of MultiSports.
TABLE = np.float32(
    [
        *([0, frame, 0, 0.9, 0, 0, 50, 100] for frame in range(1, 19)),
        *([0, frame, 1, 0.8, 100, 0, 150, 100] for frame in range(3, 21)),
    ]
)
ROWS, OTHER = np.split(
    np.column_stack([TABLE[:, [1, 4, 5, 6, 7]], np.full(len(TABLE), 0.5)]), 2
)
TUBES = {0: [('v', np.float32(0.9), ROWS)], 1: [('v', 0.8, OTHER)]}


def evaluate(path, truth=TRUTH, **options):
    frame_metric = build(TubeFrameMAPMetric, truth, **options)
    video_metric = build(VideoMAPMetric, truth, linking=dict(min_score=0))
    return evaluate_results([frame_metric, video_metric], read_results(path))


@pytest.fixture
def write(tmp_path):
    """A pickle of Python 2, with a name."""

    def write(content, name='found.pkl'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
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
        ['wvx'.index(video), frame, label, value, *np.sort(box.reshape(2, 2), 0).flat]
        for label in range(3)
        for (video, frame), value, box in frame_detections(samples, label)
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
            label: [[rows, score] for video, score, rows in tubes if video == 'v']
            for label, tubes in content.items()
        }
        return evaluate(write(pairs, 'folder/v_tubes.pkl').parent)

    # Rows after the end of the video count, as in the scripts; other videos do not.
    longer = np.vstack([OTHER, [21, 0, 0, 9, 9, 1], [9e15, 0, 0, 9, 9, 1]])
    content = {0: [('w', 1, ROWS), *TUBES[0]], 1: [('v', 0.8, longer)]}
    assert run(content)['video_mAP/overall@0.5:0.95'] == pytest.approx((1 + 0.9) / 2)
    # Frames may be left out at will, and so may the scores of the boxes.
    bare = {
        label: [(video, score / 1e3, rows[[0, *range(2, 18)], :5])]
        for label, [(video, score, rows)] in TUBES.items()
    }
    assert run(bare)['video_mAP/overall@0.5:0.95'] == pytest.approx(0.9)
    # ACT's evaluation suppresses tubes: 5 of 18 frames of a better one are too few.
    for number, ap in ((5, 1 / 4), (6, 0 if folder else 1 / 4)):
        content = {0: [('v', 0.8, ROWS), ('v', 0.9, ROWS[:number])], 1: []}
        assert run(content)['video_mAP/run@0.5'] == ap


def changed(column, value):
    table = TABLE.astype(float)
    table[0, column] = value
    return table


NAME = 'Run/v_Run_g01_c01'
OF_UCF = ground_truth({NAME: GTTUBES}, labels=['run', 'sit'], nframes=20)
BAD_PICKLES = [
    *(TABLE[:, :7], changed(1, 0), changed(6, -9), changed(0, 1), changed(2, 2)),
    *({}, {0: [(ROWS, 0.9)]}, {'run': TUBES[0]}, {2: TUBES[0]}),
    *({0: [('v', 0.9, ROWS[::-1])]}, {0: [('v', 9, ROWS)]}),
    # of ROAD
    [[], [[]], [f'{NAME}/x.mat']],
    *([[], boxes, [f'{NAME}/1.mat']] for boxes in ([[], []], [[np.ones((1, 5))]] * 3)),
    *(
        [[], [[boxes]], [f'{NAME}/1.mat']]
        for boxes in (np.ones((1, 4)), np.full((1, 5), np.nan), np.full((1, 5), 9.0))
    ),
]


@pytest.mark.parametrize('content', BAD_PICKLES, ids=range(len(BAD_PICKLES)))
def test_faulty_pickles(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    truth = OF_UCF if isinstance(content, list) else TRUTH
    check_content(tmp_path / 'found.pkl', content, partial(evaluate, truth=truth))


def test_a_folder_without_tubes_of_a_video(write):
    with pytest.raises(ValueError, match=r'v_tubes\.pkl'):
        evaluate(write({0: []}, 'w_tubes.pkl').parent)


def write_yowo(folder, samples):
    """As ``test_ucf24_jhmdb21`` of YOWO does: (score, box) of all classes in each frame."""
    folder.mkdir()
    for sample in samples:
        name = f'{sample["video_id"].replace("/", "_")}_{sample["timestamp"]:05}.txt'
        with open(folder / name, 'w+') as file:
            for box, scores in zip(*sample['pred_instances'].values(), strict=True):
                x1, y1, x2, y2 = (round(float(side)) for side in box * SCALE)
                best = int(scores[1:].argmax())
                other_labels = [c for c in range(len(scores) - 1) if c != best]
                for label in [best, *other_labels]:
                    prob = float(scores[1 + label])
                    if prob > 0.005:
                        file.write(f'{best + 1} {prob} {x1} {y1} {x2} {y2}\n')
    return folder


def literal_yowo(folder, truth):
    """pascalvoc.py: files by name, a stable sort, the best truth or none, exact area."""
    detections, gts = {}, {}
    for file in sorted(folder.iterdir()):
        for line in file.read_text().splitlines():
            label, score, *box = map(float, line.split())
            detections.setdefault(int(label), []).append((file.stem, score, box))
    for video, classes in truth['gttubes'].items():
        for label, tubes in classes.items():
            for frame, *box in (row.tolist() for tube in tubes for row in tube):
                name = f'{video.replace("/", "_")}_{int(frame):05}'
                gts.setdefault(label + 1, {}).setdefault(name, []).append(box)
    listed, aps = {name for boxes in gts.values() for name in boxes}, []
    for label, boxes in gts.items():
        class_detections = [row for row in detections[label] if row[0] in listed]
        iou = partial(box_iou, pixel=1)
        right = right_of_voc(class_detections, boxes, iou, 0.5)
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        number = sum(map(len, boxes.values()))
        aps.append(area('multisports', [1, *precision], right, number))
    return np.mean(aps)


@pytest.mark.parametrize('digits', [1, 9])  # of scores: ties, or none
@pytest.mark.parametrize('seed', range(3))
def test_folders_of_yowo(tmp_path, seed, digits):
    truth, samples = noisy(seed)
    names = dict(v='B/v_1', w='BB/v_1', x='C/v_2')
    for key in ('nframes', 'resolution', 'gttubes'):
        truth[key] = {names[name]: value for name, value in truth[key].items()}
    truth['test_videos'] = [[*names.values()]]
    for sample in samples:
        sample['video_id'] = names[sample['video_id']]
        scores = sample['pred_instances']['scores']
        sample['pred_instances']['scores'] = scores.round(digits)
    folder = write_yowo(tmp_path / 'found', samples)
    values = evaluate(folder, truth, protocol='yowo')
    expected = literal_yowo(folder, truth)
    assert values['frame_mAP/overall@0.5'] == pytest.approx(expected, abs=1e-9)
    assert 0.05 < expected < 0.95


def test_a_file_that_yowo_did_not_write(tmp_path):
    for name in ('Run_v_Run_g01_c01_00001.txt', 'classes.txt'):
        (tmp_path / name).write_text('1 0.5 0 0 50 100\n')
    with pytest.raises(UserError, match=r'classes\.txt'):
        evaluate(tmp_path, OF_UCF)


def write_tuber(folder, size=224):
    """As ``validate_tuber_ucf_detection``: queries of the truth, and of background."""
    scale = size / 100
    folder.mkdir()
    for rank in (0, 1):
        with open(folder / f'{rank}.txt', 'w') as file:
            name = NAME.replace('/', '_')
            for _, frame, label, score, *box in TABLE[rank::2].tolist():
                for scores in (np.eye(3)[int(label)] * score, [0.3, 0.1, 0.6]):
                    data = np.concatenate([np.array(box) * scale, scores])
                    file.write(f'{name}-{int(frame)} {data.tolist()}\n')
            file.write(f'{name}-0 {data.tolist()}\n')
        with open(folder / f'GT_{rank}.txt', 'w') as file:
            data = np.array([0, 16, 0, 0, int(50 * scale), int(100 * scale), 1, 0])
            file.write(f'{name}-1 {data.tolist()}\n')
    return folder


def test_files_of_tuber(tmp_path):
    folder = write_tuber(tmp_path / 'found')
    values = evaluate(folder, OF_UCF, protocol='tuber')
    assert set(values.values()) == {1}
    (folder / '1.txt').unlink()
    half = evaluate(folder / '0.txt', OF_UCF, protocol='tuber')
    assert half['frame_mAP/overall@0.5'] == pytest.approx(0.5)
    with pytest.raises(ValueError, match='short side of 224'):
        evaluate(write_tuber(tmp_path / 'larger', 256), OF_UCF)


def test_a_pickle_of_road(write):
    """As test-ucf24.py writes it; boxes are 32-bit pixels of squares of 300."""
    files = [f'CONV-rgb-099-120000/{NAME}/{frame:05}.mat' for frame in range(1, 21)]
    by_label = [[np.asarray([]) for _ in files] for _ in range(2)]
    for _, frame, label, score, *box in TABLE.tolist():
        detection = np.float32([*np.array(box) / SCALE * 300, score])
        by_label[int(label)][int(frame) - 1] = detection[None]
    path = write([[np.zeros((1, 5))] * len(files), by_label, files])
    options = dict(protocol='road_python', iou_thrs=0.5)
    assert set(evaluate(path, OF_UCF, **options).values()) == {1}


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / '0.txt')
    with pytest.raises(UserError, match='not a regular file'):
        evaluate(tmp_path, OF_UCF)


YOWO_FILE, YOWO_LINE = 'Run_v_Run_g01_c01_00001.txt', '1 0.9 0 0 50 100\n'
BAD_YOWO_LINES = (
    '1 0.9 0 0 5',
    '1 0.9 0 0 50 x',
    '1 0.9 0 0 nan 100',
    '1 0.9 50 0 0 100',
    '1 1.9 0 0 50 100',
    '0 0.9 0 0 50 100',
    '1.5 0.9 0 0 50 100',
    '3 0.9 0 0 50 100',
)
TUBER_LINE = 'Run_v_Run_g01_c01-1 [0.0, 0.0, 99.0, 99.0, 0.9, 0.05, 0.05]\n'
BAD_TUBER_LINES = (
    TUBER_LINE[:40],
    TUBER_LINE.replace(', 0.05]', ']'),
    TUBER_LINE.replace('99.0', 'x'),
    TUBER_LINE.replace('99.0', 'inf'),
    TUBER_LINE.replace('0.9,', '1.9,'),
    TUBER_LINE.replace('-1 ', ' '),
)


@pytest.mark.parametrize(
    ('name', 'content', 'place'),
    [
        *((YOWO_FILE, YOWO_LINE + line, 'line 2') for line in BAD_YOWO_LINES),
        *(('0.txt', TUBER_LINE + line, 'line 2') for line in BAD_TUBER_LINES),
        (YOWO_FILE, '1 0.9 0 0 1 1\n', 'found'),
        (YOWO_FILE, '', 'found'),
        (YOWO_FILE, f'{YOWO_LINE}\xff', 'found'),
        (YOWO_FILE.replace('00001', '00000'), YOWO_LINE, 'found'),
        (YOWO_FILE.replace('Run', 'Sit'), YOWO_LINE, 'Sit_v'),
        ('0.txt', TUBER_LINE.replace('Run', 'Sit'), 'Sit_v'),
    ],
)
def test_damaged_files(tmp_path, name, content, place):
    """One sentence with the folder and the line, or with the video."""
    folder = tmp_path / 'found'
    folder.mkdir()
    (folder / name).write_text(content, 'latin-1')
    with pytest.raises(UserError) as error:
        evaluate(folder, OF_UCF)
    message = str(error.value)
    assert is_sentence(message)
    assert place in message and (place == 'Sit_v' or str(folder) in message)


def test_the_table_of_all_protocols(tmp_path, monkeypatch):
    """docs/evaluation.md has the values of the result that the demo makes."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(ROOT / 'demo' / 'one_result.py')
    results = read_results('found.pkl')
    rows = re.findall(
        r"^\| (`'.*) \| \w+ \w+ \w+ \| ([\d.]+) \| ([\d.]*) \| ([\d.]*) \|$",
        (ROOT / 'docs' / 'evaluation.md').read_text(),
        re.MULTILINE,
    )
    named = {TubeFrameMAPMetric: set(), VideoMAPMetric: set()}
    for names, frame, *video in rows:
        for name in re.findall(r"'(\w+)'", names):
            for kind, values, options in (
                (TubeFrameMAPMetric, [frame], {}),
                (VideoMAPMetric, video, dict(iou_thrs=(0.2, 0.5), linking=name)),
            ):
                if name in kind.protocols and all(values):
                    named[kind].add(name)
                    metric = kind('GT.pkl', protocol=name, **options)
                    feed(metric, results)
                    aps = [*metric.evaluate(len(metric.results)).values()]
                    assert [f'{100 * ap:.1f}' for ap in aps[: len(values)]] == values
    assert named == {kind: {*kind.protocols} for kind in named}
