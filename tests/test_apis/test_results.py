import csv
import json
from itertools import count

import jsonschema
import numpy as np
import pytest
from run_tool import ROOT
from tiny_stmixer import write_video

from stmixer_mm.apis.results import KeyframeDetections, VideoDetections
from stmixer_mm.datasets.annotations.masks import decode, encode, read_segmentation
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.results.csv_detections import CsvDetections
from stmixer_mm.projects.annotate.convert import (
    convert_annotations,
    read_annotations,
)
from stmixer_mm.visualization.draw import draw_detections

ACTIONS = ('stand', 'walk', 'wave')


def video(keyframes, source='a,b.mp4', **given):
    size = dict(fps=10.0, width=48, height=32, total_frames=60)
    return VideoDetections(source=source, keyframes=keyframes, **size, **given)


FOUND = [
    KeyframeDetections(
        1.0, 10, np.array([[1, 2, 3, 4], [5, 6, 7.25, 8]]),
        [[('walk', 0.9), ('wäve', 0.5)], []],
    ),
    KeyframeDetections(2.0, 20, np.zeros((0, 4)), []),
]  # fmt: skip


def test_json_holds_every_detection(tmp_path):
    video(FOUND).save(tmp_path / 'out.json')
    assert json.loads((tmp_path / 'out.json').read_text()) == dict(
        version=1,
        video='a,b.mp4',
        fps=10.0,
        width=48,
        height=32,
        total_frames=60,
        keyframes=[
            dict(
                time_s=1.0,
                frame=10,
                persons=[
                    dict(
                        bbox=[1, 2, 3, 4],
                        actions=[
                            dict(action='walk', score=0.9),
                            dict(action='wäve', score=0.5),
                        ],
                    ),
                    dict(bbox=[5, 6, 7.25, 8], actions=[]),
                ],
            ),
            dict(time_s=2.0, frame=20, persons=[]),
        ],
    )


def test_csv_has_a_row_per_person_and_action(tmp_path):
    video(FOUND).save(tmp_path / 'out.csv')
    with open(tmp_path / 'out.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['action'] for row in rows] == ['walk', 'wäve', '']
    assert [row['score'] for row in rows] == ['0.9', '0.5', '']
    assert [row['x1'] for row in rows] == ['1.0', '1.0', '5.0']
    assert list(rows[0])[:4] == ['video', 'time_s', 'frame', 'x1']
    assert rows[2]['x2'] == '7.25'
    assert {row['video'] for row in rows} == {'a,b.mp4'}


def test_what_was_foretold_says_so(tmp_path):
    foretold = [
        FOUND[0]._replace(ahead_s=0.5),
        FOUND[0]._replace(time_s=6.4, frame_index=64, ahead_s=0.5),
    ]
    found = video(foretold)
    records = found.to_dict()['keyframes']
    assert [(one['time_s'], one['ahead_s']) for one in records] == [
        (1, 0.5),
        (6.4, 0.5),
    ]
    # Beyond the video's 60 frames there is nothing to annotate or to draw on.
    within = video(foretold[:1])
    for name in ('to_cvat', 'to_coco'):
        getattr(found, name)(tmp_path / 'all')
        getattr(within, name)(tmp_path / 'within')
        assert (tmp_path / 'all').read_text() == (tmp_path / 'within').read_text()
    with pytest.raises(UserError, match=r'a,b.mp4 ends before 6.4 s'):
        found.plot(1)


TRACKED = [
    FOUND[0]._replace(ids=[3, 1]),
    FOUND[1]._replace(ids=[]),
    FOUND[0]._replace(frame_index=30, time_s=3.0, ids=[1, 3]),
    FOUND[0]._replace(
        frame_index=40, time_s=4.0, ids=[1, 3], actions=[[('walk', 0.6)], []]
    ),
]


def test_json_of_persons_with_ids_has_tubes(tmp_path):
    video(TRACKED).save(tmp_path / 'out.json')
    found = json.loads((tmp_path / 'out.json').read_text())
    ids = [[one['id'] for one in frame['persons']] for frame in found['keyframes']]
    assert ids == [[3, 1], [], [1, 3], [1, 3]]
    once = dict(first_frame=10, last_frame=10)
    late = dict(first_frame=30, last_frame=30)
    assert found['tubes'] == [
        dict(
            id=3,
            first_frame=10,
            last_frame=40,
            actions=[
                dict(action='walk', score=0.9, **once),
                dict(action='wäve', score=0.5, **once),
            ],
        ),
        dict(
            id=1,
            first_frame=10,
            last_frame=40,
            actions=[
                dict(action='walk', score=0.75, first_frame=30, last_frame=40),
                dict(action='wäve', score=0.5, **late),
            ],
        ),
    ]


def test_csv_of_persons_with_ids_has_a_column_more(tmp_path):
    video(TRACKED[:1]).save(tmp_path / 'out.csv')
    video(FOUND[:1]).save(tmp_path / 'plain.csv')
    tracked, plain = (
        list(csv.reader((tmp_path / name).read_text('utf-8').splitlines()))
        for name in ('out.csv', 'plain.csv')
    )
    assert [row[:-1] for row in tracked] == plain
    assert [row[-1] for row in tracked] == ['id', '3', '3', '1']


@pytest.fixture
def found(tmp_path):
    """Persons at 0 s, 1 s, …, 5 s; number 7 is away at 2 s and 3 s, nobody at 5 s."""
    random, frame = np.random.RandomState(0), count()

    def keyframe(*ids):
        corners = np.sort(random.uniform(0, 1, (len(ids), 2, 2)), axis=1)
        corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 0.2).clip(0, 1)
        bboxes = corners.reshape(-1, 4) * (48, 32, 48, 32)
        actions = [
            [(ACTIONS[one], score) for one, score in enumerate(scores) if score > 0.4]
            or [('stand', 0.4)]
            for scores in random.uniform(0, 1, (len(ids), 3))
        ]
        number = next(frame)
        scores = random.uniform(0.6, 1, len(ids))
        return KeyframeDetections(number, 10 * number, bboxes, actions, [*ids], scores)

    persons = [(7, 3), (3, 7), (3,), (4, 3), (7,), ()]
    path = write_video(tmp_path / 'clip.mp4', frames=60, size=(48, 32))
    keyframes = [keyframe(*ids) for ids in persons]
    return video(keyframes, str(path), classes=ACTIONS)


def without_ids(found):
    found.keyframes = [one._replace(ids=None) for one in found.keyframes]
    return found


@pytest.mark.parametrize('form', ['xml', 'json'])
@pytest.mark.parametrize('change', [lambda found: found, without_ids])
def test_from_detections_to_an_annotator_and_to_a_dataset(
    form, change, found, tmp_path
):
    found = change(found)
    write = dict(xml=found.to_cvat, json=found.to_coco)[form]
    write(tmp_path / f'found.{form}')
    label_map = tmp_path / 'action_list.pbtxt'
    items = (f'item {{ name: "{a}" id: {n} }}\n' for n, a in enumerate(ACTIONS, 1))
    label_map.write_text(''.join(items))
    summary = convert_annotations(
        [str(tmp_path / f'found.{form}')],
        str(tmp_path / 'train.csv'),
        videos=str(tmp_path),
    )
    assert summary.num_keyframes == 6
    assert summary.num_persons == 8
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
            done = {ACTIONS.index(label) + 1 for label, _ in one.actions[person]}
            assert {*labels} == done
            if one.ids is not None:
                track = sample['entity_ids'][row]
                assert tracks.setdefault(one.ids[person], track) == track
    assert len({*tracks.values()}) == len(tracks)


def test_ava_s_csv_is_read_back(found, tmp_path):
    found.to_csv(tmp_path / 'found.csv')
    rows = CsvDetections(tmp_path / 'found.csv')
    expected = [
        ('clip', one.time_s, *bbox / (48, 32, 48, 32), ACTIONS.index(label) + 1, score)
        for one in found.keyframes
        for bbox, actions in zip(one.bboxes, one.actions, strict=True)
        for label, score in actions
    ]
    assert len(rows._table) == len(expected)
    for row, (name, time_s, *numbers) in zip(rows._table, expected, strict=True):
        assert rows._keyframes[int(row[1])] == (name, time_s)
        np.testing.assert_allclose(row[2:], numbers, atol=6e-5)
    with pytest.raises(UserError, match='has a comma or a quote'):
        video(found.keyframes).to_csv(tmp_path / 'found.csv')


def test_the_json_is_as_its_schema_says(found):
    schema = json.loads((ROOT / 'docs' / 'detections.schema.json').read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    found.damage = [(1.0, 2.0)]
    broken = VideoDetections(source='gone.mp4', error='It is gone.')
    plain = video([one._replace(person_scores=None) for one in FOUND])
    for one in (found, broken, plain, video(TRACKED)):
        content = json.loads(json.dumps(one.to_dict()))
        jsonschema.validate(content, schema)
        # Nothing is said that the schema does not explain.
        assert {*content} <= {*schema['properties']}
        for keyframe in content['keyframes']:
            for person in keyframe['persons']:
                assert {*person} <= {*schema['$defs']['person']['properties']}
                person['bbox'].append(0)
                with pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate(content, schema)
                person['bbox'].pop()


def test_a_keyframe_is_drawn_on_its_frame(found):
    picture = open_video(found.source).get_batch([10])[0]
    drawn = found.plot(1)
    assert min(drawn.shape[:2]) == 360
    large = np.zeros((360, 540, 3), np.uint8)
    one = found.keyframes[1]
    expected = draw_detections(large, one.bboxes * 11.25, one.actions)
    boxes = (expected != large).any(axis=-1)
    assert (found.plot(1, picture) == drawn).all()
    # Colours are the ids', so that only what is drawn on is the same.
    given = found.plot(1, np.zeros((32, 48, 3), np.uint8))
    assert ((given != 0).any(axis=-1) == boxes).mean() > 0.99


def test_masks_are_in_every_form_of_the_detections(tmp_path):
    """JSON, data samples, pictures, and COCO for annotators, which is read again."""
    drawn = np.zeros((2, 32, 48), bool)
    drawn[0, 4:20, 2:10] = drawn[1, 10:30, 20:40] = True
    found = FOUND[0]._replace(
        bboxes=np.array([[2, 4, 10, 20], [20, 10, 40, 30.0]]),
        masks=[encode(mask) for mask in drawn],
    )
    detections = [found, FOUND[1]._replace(masks=[])]
    detections = video(detections, source='a.mp4', classes=('stand', 'walk', 'wäve'))
    content = json.loads(json.dumps(detections.to_dict()))
    schema = json.loads((ROOT / 'docs' / 'detections.schema.json').read_text())
    jsonschema.validate(content, schema)
    persons = content['keyframes'][0]['persons']
    assert [decode(person['mask']).sum() for person in persons] == [128, 400]
    one, none = (sample.pred_instances.masks for sample in detections.to_datasamples())
    assert np.array_equal(one.numpy(), drawn) and none.shape == (0, 32, 48)
    black = np.zeros((32, 48, 3), np.uint8)
    plain = video([found._replace(masks=None)]).plot(0, black)
    picture = detections.plot(0, black)
    inside = np.kron(drawn.any(axis=0), np.ones((11, 11))) > 0  # 360 / 32 is 11.25
    changed = (picture != plain).any(axis=2)[: inside.shape[0], : inside.shape[1]]
    assert 0.5 < changed.sum() / inside.sum() < 1.1
    detections.to_coco(tmp_path / 'a.json')
    (read,) = read_annotations(str(tmp_path / 'a.json')).videos
    kept = [read_segmentation(track[0].segmentation, (32, 48)) for track in read.tracks]
    assert kept == found.masks
