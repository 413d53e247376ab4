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
    with pytest.raises(ValueError, match=r'line 2: .* \(the action id 81 is not'):
        raise_first(faults)


def test_all_faults_are_found_and_the_first_error_counts_them(write_text):
    _, faults = read_keyframe_rows(write_text('a.csv', 'x', GOOD, 'y', 'z'))
    assert [fault.line for fault in faults] == [1, 3, 4]
    with pytest.raises(ValueError, match=r"line 1: 'x' is not .* \(2 more: "):
        raise_first(faults)


@pytest.mark.parametrize('content', [b'', b'\xef\xbb\xbf'])
def test_a_file_without_a_readable_line_is_refused(tmp_path, content):
    file = tmp_path / 'a.csv'
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r'a.csv: the file'):
        read_keyframe_rows(str(file))


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(ValueError, match=r'none.csv: the file does not exist'):
        read_keyframe_rows(str(tmp_path / 'none.csv'))


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
    with pytest.raises(ValueError, match=r"bad.csv, line 2: 'b'"):
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
    'lines, words',
    [
        ([], 'the label map has no item; write item'),
        (
            label_map(('sit', 1), ('run', 1)),
            'line 5: the id 1 is that of .* line 1 too',
        ),
        (['item { name: "a" id: 1 } item { name: "b" id: 1 }'], 'line 1: the id 1 is'),
        (label_map(('sit', 1), ('sit', 2)), "line 5: the name 'sit' is that of"),
        (label_map(('sit', '9' * 5000)), 'is not a whole number'),
        (label_map(('sit', '٣')), "line 1: the id '٣' is not a whole number"),
        (label_map(('sit', 'one')), "line 1: the id 'one' is not a whole number"),
        (label_map(('', 1)), 'line 1: the item has no name'),
        (['item {', '  name: "sit"', '}'], 'line 1: the item has no id; write item'),
        (['', 'item { id: 1 }'], 'line 2: the item has no name'),
        (['item {', '  name: "sit"', '  id: 1'], 'line 1: the item is cut short'),
        (['item {', '  name: "sit'], "line 2: 'name: \"sit' is out of place; write"),
        (['item {', '  name: sit down', '}'], "line 2: 'down' is out of place"),
        (['sit', 'run'], "line 1: 'sit' is out of place; write item"),
        (['{"1": "sit"}'], "line 1: '{.*}' is out of place"),
        (['item # {', '} { name: "a" id: 1 }'], "line 1: 'item # {' is out of place"),
        (label_map(('sit', 0)), 'has id 0; count ids from 1'),
        (label_map(('sit', 1), ('run', 9)), 'has id 9; count ids from 1 up to 4, or'),
    ],
)
def test_faults_of_label_maps(write_text, lines, words):
    with pytest.raises(ValueError, match=words):
        read_label_names(write_text('l.pbtxt', *lines), num_classes=5)


def test_the_columns_of_labels_are_bounded(write_text):
    file = write_text('l.pbtxt', *label_map(('sit', 20_000_000)))
    with pytest.raises(ValueError, match=r'has id 20000000; count ids .* up to 10000,'):
        read_label_names(file)


@pytest.mark.parametrize(
    'custom, num_classes',
    [([1, 1], 3), ([0, 1], 3), ([1, 2], 81), ([1, 9], 3), ([1, 9], None)],
)
def test_faults_of_custom_classes(write_text, custom, num_classes):
    words = rf'custom_classes=\[{custom[0]}, .* num_classes={num_classes} .* each once'
    file = write_text('l.pbtxt', *label_map(('sit', 1), ('run', 2)))
    with pytest.raises(ValueError, match=words):
        read_classes(file, num_classes, custom)
