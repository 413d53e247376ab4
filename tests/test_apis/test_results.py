"""Laws of the one record: what is written is read back, in each format."""

import csv
import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import supervision
from detections import keyframe, without_nulls
from run_tool import ROOT

from stmixer_mm.apis.results import detections_schema, plot_keyframe
from stmixer_mm.apis.tracking import list_tubes
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.results.rows import read_rows
from stmixer_mm.pictures import decode, encode
from stmixer_mm.structures import Action, Keyframe, Person, VideoDetections, top_actions

WALK, WAVE = ('walk', 0.9), ('wäve', 0.5)
BBOXES = [[1, 2, 3, 4], [5, 6, 7.25, 8]]
FOUND = [keyframe(1.0, 10, BBOXES, [[WALK, WAVE], []]), keyframe(2.0, 20, [], [])]
TRACKED = [
    keyframe(1.0, 10, BBOXES, [[WALK, WAVE], []], [3, 1], [0.8, 0.7]),
    keyframe(2.0, 20, [], []),
    keyframe(3.0, 30, BBOXES, [[WALK, WAVE], []], [1, 3], [0.8, 0.7]),
    keyframe(4.0, 40, BBOXES, [[('walk', 0.6)], []], [1, 3], [0.8, 0.7]),
]
SIZE = dict(fps=10.0, width=48, height=32, total_frames=60)
DRAWN = np.zeros((2, 32, 48), bool)
DRAWN[0, 4:20, 2:10] = DRAWN[1, 10:30, 20:40] = True
CORNERS = [[2, 4, 10, 20], [20, 10, 40, 30]]
MASKED = keyframe(1.0, 10, CORNERS, [[WALK], [WAVE]], masks=[*map(encode, DRAWN)])


def video(keyframes, source='a,b.mp4', **fields):
    return VideoDetections(source=source, keyframes=keyframes, **SIZE, **fields)


DAMAGE = dict(damage=[(1.0, 2.5)], damage_reasons=['frame 10 cannot be decoded'])
VIDEOS = dict(
    plain=video(FOUND),
    tracked=video(TRACKED, tubes=list_tubes(TRACKED), **DAMAGE),
    broken=VideoDetections(source='gone.mp4', error='It is gone.'),
    ahead=video([replace(keyframe, ahead_s=0.5) for keyframe in FOUND], tubes=[]),
    masked=video([MASKED]),
)


@pytest.mark.parametrize('text', ['=1+1', '+1', '-1', '@a', '\ta', '\ra', 'a=1'])
def test_a_table_has_no_formulas(tmp_path, text):
    actions = [[(text, 0.5)], []]
    video([keyframe(1.0, 10, BBOXES, actions)], text).save(tmp_path / 'a.csv')
    with open(tmp_path / 'a.csv', newline='', encoding='utf-8') as file:
        first, second = csv.DictReader(file)
    cell = text if text == 'a=1' else f"'{text}"
    assert first['action'] == first['video'] == cell
    assert (second['action'], first['x1'], first['score']) == ('', '1.0', '0.5')


@pytest.mark.parametrize('detections', VIDEOS.values(), ids=VIDEOS)
def test_records_json_and_parquet_are_the_same(detections, tmp_path):
    detections.save(tmp_path / 'a.json')
    assert VideoDetections.load(tmp_path / 'a.json') == detections
    content = json.loads((tmp_path / 'a.json').read_text())
    assert VideoDetections.from_dict(content).to_dict() == content
    parquet = pytest.importorskip('pyarrow.parquet')
    detections.save(tmp_path / 'a.parquet')
    (row,) = parquet.read_table(tmp_path / 'a.parquet').to_pylist()
    assert without_nulls(row) == detections.to_dict()


def test_the_schema_is_that_of_the_records():
    """Written by ``json.dumps(stmixer_mm.apis.detections_schema(), indent=2)``."""
    schema = json.loads((ROOT / 'docs' / 'detections.schema.json').read_text())
    assert schema == detections_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for detections in VIDEOS.values():
        content = json.loads(json.dumps(detections.to_dict()))
        jsonschema.validate(content, schema)
        for record in content['keyframes']:
            for person in record['persons']:
                person['bbox'].append(0)
                with pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate(content, schema)
                person['bbox'].pop()


def test_an_action_has_an_entry_for_each_stretch_of_keyframes():
    def keyframe(frame, *actions, persons=1):
        doing = [Action(name, score) for name, score in actions]
        person = Person(id=7, bbox=(0, 0, 1, 1), actions=doing)
        return Keyframe(time_s=frame, frame_index=frame, persons=[person] * persons)

    (tube,) = list_tubes(
        [
            keyframe(0, ('sit', 0.5)),
            keyframe(5, ('sit', 0.7), ('wave', 0.9)),
            keyframe(10, ('stand', 0.8)),
            keyframe(15, ('sit', 0.4)),
            keyframe(20, persons=0),  # nobody is there
            keyframe(25, ('sit', 0.3)),
        ]
    )
    assert (tube.first_frame, tube.last_frame) == (0, 25)
    spans = [(span.action, span.first_frame, span.last_frame) for span in tube.actions]
    sit = ('sit', 0, 5), ('sit', 15, 15), ('sit', 25, 25)
    assert spans == [*sit, ('wave', 5, 5), ('stand', 10, 10)]
    assert tube.actions[0].score == pytest.approx(0.6)


def test_rows_are_a_data_frame():
    pytest.importorskip('pandas')
    with_action = [row for row in VIDEOS['tracked'].rows() if row['action']]
    table = VIDEOS['tracked'].to_dataframe()
    assert table.dropna().to_dict('records') == with_action != []


def test_table_has_a_row_per_person_and_action(tmp_path):
    VIDEOS['plain'].save(tmp_path / 'plain.csv')
    video(TRACKED[:1], tubes=[]).save(tmp_path / 'tracked.csv')
    plain, tracked = (
        list(csv.DictReader((tmp_path / f'{name}.csv').read_text('utf-8').splitlines()))
        for name in ('plain', 'tracked')
    )
    columns = [[row[name] for name in ('action', 'score', 'x1')] for row in plain]
    assert columns == [['walk', '0.9', '1.0'], ['wäve', '0.5', '1.0'], ['', '', '5.0']]
    assert {row['video'] for row in plain} == {'a,b.mp4'}
    assert [row.pop('id') for row in tracked] == ['3', '3', '1']
    assert tracked == plain


def test_no_result_replaces_its_source_or_goes_nowhere(tmp_path):
    source = tmp_path / 'a.mp4'
    source.write_bytes(b'frames')
    detections = video([], source=str(source))
    for path in (source, tmp_path / 'nowhere' / 'a.json'):
        with pytest.raises(UserError):
            detections.save(path, 'json')
    assert source.read_bytes() == b'frames'


def test_ava_s_csv_is_read_back(tmp_path):
    random = np.random.RandomState(0)
    bboxes = np.sort(random.uniform(0, 1, (4, 2, 2)), axis=1).reshape(-1, 4)
    record, expected = keyframe(2.5, 25, bboxes * (48, 32, 48, 32), [[]] * 4), []
    for person, bbox in zip(record.persons, bboxes, strict=True):
        person.actions = top_actions(random.uniform(0, 1, 4), None, 0.3)
        expected += [(*bbox, done.label, done.score) for done in person.actions]
    video([record], 'clip.mp4').save(tmp_path / 'a.csv', 'ava')
    keyframes, table = read_rows(str(tmp_path / 'a.csv'))
    assert keyframes == [('clip', 2.5)]
    rows = np.array([*map(list, table)])
    np.testing.assert_allclose(rows[:, 2:], expected, atol=6e-5)


def test_a_keyframe_is_drawn_enlarged_with_its_masks():
    np.testing.assert_array_equal([*map(decode, MASKED.masks)], DRAWN)
    np.testing.assert_array_equal(MASKED.to_supervision().mask, DRAWN)
    black = np.zeros((32, 48, 3), np.uint8)
    plain = keyframe(1.0, 10, CORNERS, MASKED.actions)
    changed = (plot_keyframe(MASKED, black) != plot_keyframe(plain, black)).any(axis=2)
    inside = np.kron(DRAWN.any(axis=0), np.ones((11, 11))) > 0  # 360 / 32 is 11.25
    changed = changed[: inside.shape[0], : inside.shape[1]]
    assert 0.5 < changed.sum() / inside.sum() < 1.1


@pytest.mark.parametrize('expected', [*TRACKED, *FOUND])
def test_supervision_takes_keyframes_and_gives_them_back(expected):
    clock = dict(time_s=expected.time_s, frame_index=expected.frame_index)
    detections = expected.to_supervision()
    assert Keyframe.from_supervision(detections, **clock) == expected
    names = [pairs[0][0] if pairs else '' for pairs in expected.actions]
    assert detections.data['class_name'].tolist() == names


def test_boxes_and_ids_of_supervision_count():
    """What its trackers and slices change."""
    detections = TRACKED[0].to_supervision()[::-1]
    detections.tracker_id, detections.xyxy[0] = np.array([0, 8]), (1, 1, 2, 2)
    persons = Keyframe.from_supervision(detections).persons
    values = [(person.id, person.bbox, person.score) for person in persons]
    assert values == [(0, (1, 1, 2, 2), 0.7), (8, (1, 2, 3, 4), 0.8)]


def test_persons_of_other_detectors_have_no_action():
    bboxes, scores = np.array([[1, 2, 3, 4]]), np.array([0.5], np.float32)
    detections = supervision.Detections(bboxes, confidence=scores)
    person = Person(bbox=(1, 2, 3, 4), score=0.5, actions=[])
    assert Keyframe.from_supervision(detections).persons == [person]
