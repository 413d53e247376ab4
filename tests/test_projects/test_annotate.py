import json
import re

import numpy as np
import pytest

from stmixer_mm.datasets.annotations.ava_csv import read_label_names
from stmixer_mm.datasets.frames import keyframe_index
from stmixer_mm.errors import UserError
from stmixer_mm.projects.annotate.convert import choose_keyframes, convert_annotations

META = """\
  <meta><task>
    <size>40</size><start_frame>0</start_frame><stop_frame>39</stop_frame>
    <labels><label><name>person</name><attributes>
      <attribute><name>wave</name><input_type>checkbox</input_type>
        <values>false</values></attribute>
      <attribute><name>pose</name><input_type>select</input_type>
        <values>__undefined__\nstand\nwalk</values></attribute>
      <attribute><name>note</name><input_type>text</input_type></attribute>
    </attributes></label></labels>
    <original_size><width>64</width><height>48</height></original_size>
  </task><source>clip.mp4</source></meta>
"""


def box(frame, bbox, pose='stand', *, wave=False, outside=0):
    corners = 'xtl="{}" ytl="{}" xbr="{}" ybr="{}"'.format(*bbox)
    return (
        f'<box frame="{frame}" {corners} outside="{outside}">'
        f'<attribute name="wave">{str(wave).lower()}</attribute>'
        f'<attribute name="pose">{pose}</attribute>'
        '<attribute name="note">some words</attribute></box>'
    )


def track(*boxes, label='person'):
    return f'<track id="0" label="{label}">{"".join(boxes)}</track>'


def cvat(*tracks, meta=META):
    head = '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
    return f'{head}{meta}{"".join(tracks)}</annotations>'


# Seen from frame 0 to 24, waving from 20 on; the other one in frame 20 alone.
TRACKS = (
    track(
        box(0, (0, 0, 16, 24)),
        box(20, (10, 0, 26, 24), 'walk', wave=True),
        box(25, (10, 0, 26, 24), outside=1),
    ),
    track(box(20, (-8, 12, 32, 60), 'walk'), box(21, (0, 0, 9, 9), outside=1)),
    track('<box frame="0" xtl="5" ytl="5" xbr="9" ybr="9"/>', label='ball'),
    track('<points frame="0" points="5,5"/>'),
)


def coco(**changes):
    """Two videos of two annotated frames; keys of ``changes`` replace lists."""
    size = dict(width=64, height=48)
    frames = {100: (1, 0), 110: (1, 10), 200: (2, 0), 210: (2, 10)}
    content = dict(
        videos=[dict(id=1, name='clip.mp4', **size), dict(id=2, name='other', **size)],
        images=[dict(id=i, video_id=v, frame_id=f) for i, (v, f) in frames.items()],
        annotations=[
            dict(id=1, image_id=100, category_id=1, bbox=[0, 0, 32, 24], track_id=7),
            dict(id=2, image_id=100, category_id=2, bbox=[0, 0, 32, 24], track_id=7),
            dict(id=3, image_id=110, category_id=2, bbox=[16, 12, 32, 24], track_id=7),
            dict(id=4, image_id=210, category_id=1, bbox=[-8, 0, 32, 24]),
        ],
        categories=[dict(id=1, name='stand'), dict(id=2, name='wave')],
    )
    return json.dumps({**content, **changes})


def person(frame=0, **entry):
    common = dict(id=1, image_id=100 + frame, category_id=1, bbox=[10, 10, 8, 20])
    return common | entry


@pytest.fixture
def convert(tmp_path, write_video):
    write_video('clip.mp4')
    write_video('other.mp4')

    def convert(text, name='ann.xml', **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        common = dict(videos=str(tmp_path), out=tmp_path / 'out.csv')
        return convert_annotations([str(path)], **{**common, **options})

    return convert


def lines_of(path):
    return path.read_text().splitlines()


@pytest.mark.parametrize('form', ['checkbox', 'radio', 'utf-16'])
def test_cvat_by_hand(convert, tmp_path, form):
    """A radio button of true and false is a checkbox; encodings change nothing."""
    text = cvat(*TRACKS)
    if form == 'radio':
        text = text.replace('checkbox', form).replace('>false</v', '>true\nfalse</v')
    elif form == 'utf-16':
        text = text.replace('utf-8', form).encode(form)
    summary = convert(text)
    # At 1 s the box is half way from 0 to 10: 5 / 64, 21 / 64.
    assert lines_of(tmp_path / 'out.csv') == [
        'clip.mp4,0,0,0,0.25,0.5,2,0',
        'clip.mp4,1,0.078125,0,0.328125,0.5,2,0',
        'clip.mp4,2,0.15625,0,0.40625,0.5,1,0',
        'clip.mp4,2,0.15625,0,0.40625,0.5,3,0',
        'clip.mp4,2,0,0.25,0.5,1,3,1',
    ]
    assert lines_of(tmp_path / 'out_empty.csv') == ['clip.mp4,3']
    names = read_label_names(str(tmp_path / 'action_list.pbtxt'))
    assert names == {1: 'wave', 2: 'stand', 3: 'walk'}
    assert summary.notes == {
        'boxes were clipped to the frame.': 1,
        'points, lines and skeletons were left out.': 1,
        "boxes of the label 'ball', which has no actions, were left out.": 1,
        'attribute was not read as actions: note (see --attributes).': 1,
    }


def test_texts_are_actions_if_the_user_says_so(convert, tmp_path):
    types = '<input_type>select</input_type>', '<input_type>text</input_type>'
    for untyped in '', types[1]:
        declared = f'<attribute><name>pose</name>{untyped}<values/></attribute>'
        meta = re.sub(r'(?s)<attribute>.*</attribute>', declared, META)
        text = cvat(*TRACKS[:2], meta=meta)
        text = re.sub('<attribute name="(wave|note)".*?</attribute>', '', text)
        with pytest.raises(UserError, match=r'\(stand, walk\).*--attributes pose'):
            convert(text)
        assert convert(text, attributes=['pose']).class_counts == dict(stand=2, walk=2)
    (tmp_path / 'action_list.pbtxt').unlink()
    assert convert(cvat(*TRACKS).replace(types[0], '')).class_counts['walk'] == 2


def times_with_persons(summary):
    return [time for (_, time), people in summary.keyframes.items() if people]


@pytest.mark.parametrize('frames', [[0, 10, 10], [0, 10, 10, 20]])
def test_a_person_is_seen_in_a_frame_that_is_outside_too(convert, frames):
    shapes = [
        box(frame, (0, 0, 9, 9), outside=int(place == 2))
        for place, frame in enumerate(frames)
    ]
    times = times_with_persons(convert(cvat(track(*shapes))))
    assert times == [0, 1, 2][: len(frames) - 1]


@pytest.mark.parametrize('width', [64, 48])
def test_boxes_may_be_of_square_pixels_or_those_of_the_file(
    convert, encode_video, width
):
    encode_video('clip.mp4', np.arange(40) / 10, size=(64, 48), aspect='3/4')
    text = cvat(track(box(0, (0, 0, 12, 24)))).replace('>64<', f'>{width}<')
    assert convert(text).persons[0].bbox_norm[2] == 12 / width
    polygon = '<polygon frame="0" points="0,0;12,0;12,24">'
    text = re.sub('<box.*?>', polygon, text).replace('</box>', '</polygon>')
    if width == 64:
        with pytest.raises(UserError, match='not square'):
            convert(text)
    else:
        assert convert(text).persons[0].mask


def test_frames_counted_from_1_are_noticed(convert):
    images = [dict(id=110, video_id=1, frame_id=1)]
    text = coco(images=images, annotations=[person(10)])
    (note,) = +convert(text, 'ann.json').notes
    assert 'from 0' in note


def test_coco_by_hand(convert, tmp_path):
    convert('\ufeff' + coco(), 'ann.json')
    assert lines_of(tmp_path / 'out.csv') == [
        'clip.mp4,0,0,0,0.5,0.5,1,0',
        'clip.mp4,0,0,0,0.5,0.5,2,0',
        'clip.mp4,1,0.25,0.25,0.75,0.75,2,0',
        'other,1,0,0,0.375,0.5,1,0',
    ]
    assert lines_of(tmp_path / 'out_empty.csv') == ['other,0']
    summary = convert(coco(), 'ann.json', only=['other'])
    assert {name for name, _ in summary.keyframes} == {'other'}
    assert summary.names == {1: 'stand', 2: 'wave'}  # of all videos


def test_a_person_without_an_action_leaves_its_keyframe_out(convert, tmp_path):
    text = cvat(track(box(0, (0, 0, 9, 9)), box(10, (0, 0, 9, 9), '__undefined__')))
    assert [*convert(text).keyframes] == [('clip.mp4', time) for time in (0, 2, 3)]
    (tmp_path / 'action_list.pbtxt').unlink()
    for _ in range(2):  # the second takes the label map of the first
        summary = convert(text, idle='nothing')
        assert summary.class_counts == dict(stand=1, nothing=1)


@pytest.mark.parametrize(
    ('attributes', 'attribute_names', 'actions'),
    [
        (dict(wave=['TRUE', 'far'], source='run', group='a'), None, ['far', 'wave']),
        (dict(wave=' False', pose='none', sing=True, count=3), None, ['sing']),
        (dict(rotation='left'), None, ['stand']),
        (dict(wave=True, pose='sit'), ['pose'], ['sit']),
    ],
)
def test_actions_from_attributes_of_coco(convert, attributes, attribute_names, actions):
    text = coco(annotations=[person(attributes=attributes)])
    summary = convert(text, 'ann.json', attributes=attribute_names)
    assert sorted(summary.class_counts) == actions


def test_crowds_are_neither_persons_nor_background(convert, tmp_path):
    annotations = [person(), person(track_id=1, iscrowd=1), person(10, ignore=True)]
    summary = convert(coco(annotations=annotations), 'ann.json')
    assert len(summary.persons) == 1
    assert 'clip.mp4,1' not in lines_of(tmp_path / 'out_empty.csv')


def test_rotated_boxes_become_those_around_them(convert):
    """The box is 8 wide and 20 high around (14, 20)."""
    turned = box(0, (10, 10, 18, 30)).replace('<box', '<box rotation="30"')
    text = coco(annotations=[person(attributes=dict(stand=True, rotation=30))])
    half_w, half_h = 5 + 12**0.5, 2 + 75**0.5
    expected = [14 - half_w, 20 - half_h, 14 + half_w, 20 + half_h]
    for content, name in ((cvat(track(turned)), 'a.xml'), (text, 'a.json')):
        bbox = convert(content, name).persons[0].bbox_norm * np.array([64, 48] * 2)
        np.testing.assert_allclose(bbox, expected, atol=1e-4)


def test_ids_of_a_label_map_that_is_there_are_taken(convert, tmp_path, write_text):
    items = ['item { name: "wave" id: 4 }', 'item { name: "stand" id: 2 }']
    label_map = write_text('mine.pbtxt', *items)
    convert(coco(), 'ann.json', label_map=label_map)
    assert [row.split(',')[-2] for row in lines_of(tmp_path / 'out.csv')] == [*'2442']
    with pytest.raises(UserError, match=r'mine\.pbtxt'):
        convert(cvat(*TRACKS), label_map=label_map)


def test_jobs_of_one_video_are_taken_together(convert, tmp_path):
    jobs = [tmp_path / 'one.xml', tmp_path / 'two.xml']
    for job, frame in zip(jobs, (0, 20), strict=True):
        shapes = track(box(frame, (0, 0, 9, 9)), box(frame + 1, (0, 0, 9, 9)))
        meta = META.replace('>0</start_', f'>{frame}</start_')
        meta = meta.replace('>39</stop_', f'>{frame + 19}</stop_')
        job.write_text(cvat(shapes, meta=meta))
    common = dict(out=tmp_path / 'out.csv', videos=str(tmp_path))
    summary = convert_annotations([*map(str, jobs)], only=['clip'], **common)
    assert times_with_persons(summary) == [0, 2]


def test_a_task_without_frame_numbers_has_those_of_its_video(convert, tmp_path):
    meta = re.sub('<(size|stop_frame)>.*?</(size|stop_frame)>', '', META)
    assert len(convert(cvat(*TRACKS, meta=meta)).keyframes) == 4
    (tmp_path / 'clip.mp4').unlink()
    assert len(convert(cvat(*TRACKS, meta=meta), fps=10).keyframes) == 3  # to the last


@pytest.mark.parametrize('steps', [[1 / 23.976], [0.02, 0.1, 0.4]])
@pytest.mark.parametrize(('interval_s', 'step'), [(0.1, 1), (2.3, 7)])
def test_timestamps_name_annotated_frames(steps, interval_s, step):
    """Also at a variable rate."""
    times = np.cumsum(np.random.RandomState(0).choice(steps, 450))
    times -= times[0]
    clock = dict(fps=449 / times[-1], total_frames=450, frame_times=times)
    frames = range(4, 500, step)
    pairs = choose_keyframes(frames, interval_s, clock)
    assert len(pairs) > 0.4 * min(times[-1] / interval_s, len(frames))
    for time, frame in pairs:
        assert frame in frames
        assert frame == keyframe_index(time, **clock)
        assert abs(time - times[frame]) <= max(steps) / 2 + 1e-3
    assert (np.diff([frame for _, frame in pairs]) > 0).all()


@pytest.mark.parametrize(
    ('text', 'places'),
    [
        (cvat(*TRACKS).replace('>walk</attr', '>wlak</attr'), ['frame 20'] * 2),
        (cvat(track(box(-1, (0, 0, 9, 9)), box(5, (9, 9, 0, 0)))), ['-1', '5']),
        (cvat(track(box(0, ('nan', 0, 9, 9)))), ['frame 0']),
        (cvat(track(box(60, (0, 0, 9, 9)))), ['frame 60']),  # beyond the video
        (cvat(*TRACKS).replace('>48<', '>64<'), ['clip.mp4']),  # of another shape
        ('{"a":' * 100_000, ['ann.json']),
        (coco(videos=[dict(id=1), dict(id=1, name='')]), ['videos[0]', 'videos[1]']),
        (coco(images=[dict(id=n, video_id=1, frame_id=3) for n in (1, 2)]), ['[1]']),
        (coco(annotations=[person(attributes='wave')]), ['annotations[0]']),
        (coco(annotations=[person(segmentation=n) for n in (3, [3])]), ['[0]', '[1]']),
        (coco(annotations=[person(bbox=[n] * 4, track_id=1) for n in (9, 0)]), ['[1]']),
        ('{"images": []}', ['CVAT for video 1.1']),
    ],
    ids=len,
)
def test_all_faults_of_a_bad_file_are_named_in_one_go(convert, tmp_path, text, places):
    with pytest.raises(UserError, match=r'^[^\n]{9,500}\.$') as caught:
        convert(text, 'ann.json' if text[0] == '{' else 'ann.xml')
    errors = getattr(caught.value, 'errors', [caught.value])
    for error, place in zip(errors, places, strict=True):
        assert place in str(error)
    assert not list(tmp_path.glob('*.csv'))
