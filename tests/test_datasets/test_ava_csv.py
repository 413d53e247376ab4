import pytest

from stmixer_mm.datasets.annotations.ava_csv import (
    raise_first,
    read_classes,
    read_keyframe_rows,
    read_label_names,
)
from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.errors import UserError

GOOD = 'vid,0902,0.1,0.2,0.3,0.4,12,7'
BEYOND = 'vid,1,-0.001,0,1.001,1,1,1', 'vid,1,-0.002,0,1,1,1,1'  # rounding, and more


def test_good_lines_are_read_whole_and_faults_have_their_line(write_text):
    bad = 'vid,0902,0.1,0.2,0.3,0.4,81,7'
    rows, faults = read_keyframe_rows(
        write_text('a.csv', '', GOOD, bad, GOOD, *BEYOND), num_classes=81
    )
    *rows, clipped = rows
    assert rows == [(line, 'vid', 902, (0.1, 0.2, 0.3, 0.4), 12, 7) for line in (2, 4)]
    assert (clipped.line, clipped.bbox_norm) == (5, (0, 0, 1, 1))
    assert [fault.line for fault in faults] == [3, 6]
    with pytest.raises(UserError, match=r'a\.csv, line 3: '):
        raise_first(faults)


@pytest.mark.parametrize(
    'text',
    [
        'item {{\n  name: "{}"\n  id: {}\n}}\n',
        "item: {{ name: '{}', id: {} }}\r\n",
        'item {{\n  id: {1}  # as in AVA\n\tname: "{0}"\n}}\n',
        'label {{\n  name: "{}"\n  label_id: {}\n  label_type: POSE\n}}\n',
    ],
)
def test_forms_of_label_maps(tmp_path, text):
    file = tmp_path / 'l.pbtxt'
    items = ''.join(text.format(*item) for item in [('wave, é', 3), ('sit (on)', 1)])
    file.write_bytes(f'\ufeff{items}'.encode())
    names = read_label_names(str(file), num_classes=4)
    assert list(names.items()) == [(1, 'sit (on)'), (3, 'wave, é')]


def test_label_maps_are_read_as_they_were_written(tmp_path):
    names = ['walk', 'sta\\nd', 'stand\\', 'say "hi"', "it's", 'a # b', 'gehört, { }']
    path = tmp_path / 'l.pbtxt'
    by_id = dict(enumerate(names, start=2))
    path.write_text(format_label_map(dict(zip(names, by_id, strict=True))), 'utf-8')
    assert read_label_names(str(path)) == by_id


def test_classes_are_those_of_the_label_map_or_as_many_as_said(write_text):
    file = write_text('l.pbtxt', 'item { name: "run" id: 2 }')
    for number, count in ((None, 3), (5, 5)):
        assert read_classes(file, number) == (count, {2: 'run'})
    for faulty in ((file, 2), (None, None)):
        with pytest.raises(UserError):
            read_classes(*faulty)
