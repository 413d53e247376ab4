import pytest

from stmixer_mm.datasets.annotations.ava_csv import (
    keyframe_key,
    raise_first,
    read_classes,
    read_keyframe_rows,
    read_label_names,
    read_timestamp_keys,
)
from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.errors import UserError

GOOD = 'vid,0902,0.1,0.2,0.3,0.4,12,7'


def test_a_good_line_is_read_whole(write_text):
    rows, faults = read_keyframe_rows(write_text('a.csv', '', GOOD))
    assert not faults
    assert rows == [(2, 'vid', 902, (0.1, 0.2, 0.3, 0.4), 12, 7)]


def test_a_fault_has_file_and_line_and_good_lines_stay(write_text):
    file = write_text('a.csv', GOOD, 'vid,0902,0.1,0.2,0.3,0.4,81,7', GOOD)
    rows, faults = read_keyframe_rows(file, num_classes=81)
    assert [row.line for row in rows] == [1, 3]
    (fault,) = faults
    assert (fault.file, fault.line) == (file, 2)
    with pytest.raises(UserError, match=r'a.csv, line 2: '):
        raise_first(faults)


def test_rounding_beyond_the_border_is_clipped(write_text):
    rows, faults = read_keyframe_rows(
        write_text('a.csv', 'vid,1,-0.001,0,1.001,1,1,1', 'vid,1,-0.002,0,1,1,1,1')
    )
    assert rows[0].bbox_norm == (0, 0, 1, 1)
    assert [fault.line for fault in faults] == [2]


@pytest.mark.parametrize(
    'timestamp, key',
    [
        (902, 'v,0902'),
        (902.0, 'v,0902'),
        (1.5, 'v,0001.5'),
        (1.05, 'v,0001.05'),
        (0, 'v,0000'),
        (12345.678, 'v,12345.678'),
        (1 / 3, 'v,0000.333'),
    ],
)
def test_keys_of_whole_and_fractional_seconds(timestamp, key):
    assert keyframe_key('v', timestamp) == key


def test_timestamp_files(write_text):
    assert read_timestamp_keys(None) == set()
    assert read_timestamp_keys(write_text('none.csv')) == set()
    good = write_text('good.csv', 'a,0902', '', 'b,1.5')
    assert read_timestamp_keys(good) == {'a,0902', 'b,0001.5'}
    with pytest.raises(UserError, match=r'bad.csv, line 2: '):
        read_timestamp_keys(write_text('bad.csv', 'a,0902', 'b'))


def label_map(*items):
    return [
        line
        for name, number in items
        for line in ('item {', f'  name: "{name}"', f'  id: {number}', '}')
    ]


def test_label_names_are_in_order_of_ids(write_text):
    file = write_text('l.pbtxt', *label_map(('run', 3), ('sit', 1)))
    assert list(read_label_names(file, num_classes=4).items()) == [
        (1, 'sit'),
        (3, 'run'),
    ]
    assert read_label_names(None) == {}


@pytest.mark.parametrize(
    'text',
    [
        'item {{\n  name: "{}"\n  id: {}\n}}\n',
        'item {{\n\tname: "{}"\n\tid: {}\n}}\n',
        "item {{ name: '{}', id: {} }}\r\n",
        'item: {{name:"{}" id:{}}}\r',
        'item {{\n  id: {1}  # as in AVA\n  name: "{0}"\n}}\n',
        'label {{\n  name: "{}"\n  label_id: {}\n  label_type: POSE\n}}\n',
    ],
)
@pytest.mark.parametrize('mark', ['', '\ufeff'])
def test_forms_of_label_maps(tmp_path, text, mark):
    file = tmp_path / 'l.pbtxt'
    items = [('sit (on)', 1), ('wave, é', 2)]
    whole = mark + ''.join(text.format(*item) for item in items)
    file.write_bytes(whole.encode())
    assert read_label_names(str(file)) == {1: 'sit (on)', 2: 'wave, é'}


def test_escapes_of_protocol_buffers(write_text):
    item = r'item { name: "caf\303\251 \"a\\b\"" id: 1 }'
    assert read_label_names(write_text('l.pbtxt', item)) == {1: 'café "a\\b"'}


def test_label_maps_are_read_as_they_were_written(tmp_path):
    names = ['walk', 'sta\\nd', 'stand\\', 'say "hi"', "it's", 'a # b', 'gehört, { }']
    path = tmp_path / 'l.pbtxt'
    ids = {name: number for number, name in enumerate(names, start=2)}
    path.write_text(format_label_map(ids), encoding='utf-8')
    assert read_label_names(str(path)) == {ids[name]: name for name in names}


@pytest.mark.parametrize(
    'lines',
    [
        [],
        label_map(('sit', 1), ('run', 1)),
        label_map(('sit', '9' * 5000)),
        label_map(('', 1)),
        ['item {', '  name: "sit"', '}'],
        ['item {', '  name: "sit"', '  id: 1'],
        ['item # {', '} { name: "a" id: 1 }'],
        label_map(('sit', 0)),
        label_map(('sit', 20_000_000)),
    ],
)
def test_faults_of_label_maps(write_text, lines):
    with pytest.raises(UserError, match=r'^\S+l.pbtxt.*; .*\.$'):
        read_label_names(write_text('l.pbtxt', *lines))


@pytest.mark.parametrize(
    'custom, num_classes', [([1, 1], 3), ([1, 2], 81), ([1, 9], None), (None, 2)]
)
def test_classes_that_do_not_fit(write_text, custom, num_classes):
    file = write_text('l.pbtxt', *label_map(('sit', 1), ('run', 2)))
    with pytest.raises(UserError):
        read_classes(file, num_classes, custom)
