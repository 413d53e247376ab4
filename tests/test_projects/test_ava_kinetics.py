import codecs
import runpy
import sys
from pathlib import Path

import pytest

from stmixer_mm.errors import UserError
from stmixer_mm.projects.annotate.ava_kinetics import (
    Clip,
    choose_clip,
    convert_ava_kinetics,
    find_clips,
    parse_clip_name,
)

TOOL = Path(__file__).parents[2] / 'tools' / 'data' / 'ava_kinetics' / 'convert.py'


@pytest.fixture
def clips(tmp_path):
    """A folder in which a file stands for a clip: for converters that open none."""

    def make(*names, content='x'):
        for name in names:
            path = tmp_path / 'clips' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return str(tmp_path / 'clips')

    return make


@pytest.fixture
def convert(write_text, clips, tmp_path):
    """Lines written for lines read, and the summary."""

    def convert(*lines, folder=None, **options):
        file = write_text('kinetics_train_v1.0.csv', *lines)
        folder = folder or clips('run/a-_b_000010_000020.mp4')
        out = tmp_path / 'out.csv'
        options = dict(dict(lengths=False), **options)
        summary = convert_ava_kinetics([file], out, clips=folder, **options)
        return out.read_text().splitlines(), summary

    return convert


@pytest.mark.parametrize(
    'name, parsed',
    [
        ('abc_000012_000022', ('abc', 12, 22)),
        ('-a_b_1_2_000000_000010', ('-a_b_1_2', 0, 10)),
        ('abc_12', None),
        ('abc', None),
        ('abc_000022_000012', None),
        ('abc_000012_x', None),
    ],
)
def test_names_of_clips(name, parsed):
    assert parse_clip_name(name) == parsed


def test_the_clip_that_shows_a_moment_best():
    early, late = Clip('early', 10, 20), Clip('late', 14, 24)
    for timestamp, clip in ((10, early), (16.9, early), (17.1, late), (24, late)):
        for clips in ([early, late], [late, early]):
            assert choose_clip(clips, timestamp, lambda _: 10) is clip
    assert choose_clip([early, late], 16, {early: 5, late: 10}.get) is late
    assert choose_clip([early, late], 24.001, lambda _: 10) is None


def test_seconds_of_the_video_become_seconds_of_the_clip(convert):
    rows, summary = convert(
        'a-_b,14.04,0.1,0.2,0.3,0.4,12',
        'a-_b,14.04,0.5,0.2,0.9,1,80',
        'a-_b,14.04,0.1,0.2,0.3,0.4,4',
        'a-_b,20,0.123456,0,1,1,1',
    )
    assert rows == [
        'run/a-_b_000010_000020,4.04,0.1,0.2,0.3,0.4,12,0',
        'run/a-_b_000010_000020,4.04,0.1,0.2,0.3,0.4,4,0',
        'run/a-_b_000010_000020,4.04,0.5,0.2,0.9,1,80,1',
        'run/a-_b_000010_000020,10,0.123456,0,1,1,1,0',
    ]
    assert (summary.num_clips, summary.num_keyframes, summary.num_persons) == (1, 2, 3)


def test_what_no_clip_shows_is_left_out_and_counted(convert, clips):
    folder = clips('a_000010_000020.mp4', 'a_000014_000024.webm', 'notes.txt')
    clips('broken_000000_000010.mp4', content='')
    box = '0,0,1,1,1'
    rows, summary = convert(
        f'a,12,{box}',
        f'a,18.5,{box}',
        f'a,30,{box}',
        f'gone,3,{box}',
        f'gone,4,{box}',
        f'broken,3,{box}',
        'a,13',
        'gone,9',
        folder=folder,
    )
    assert rows == [
        'a_000010_000020,2,0,0,1,1,1,0',
        'a_000014_000024,4.5,0,0,1,1,1,0',
    ]
    assert (summary.num_clips, summary.num_keyframes) == (2, 2)
    assert summary.num_between == 1
    assert summary.num_without_video == 4
    assert summary.missing_videos == ['gone', 'broken']
    assert summary.num_empty == 1


def test_keyframes_without_a_person(convert, tmp_path):
    lines = ('a-_b,14,0,0,1,1,1', 'a-_b,14', 'a-_b,15', 'a-_b,16.5,,,,,')
    convert(*lines)
    assert not (tmp_path / 'out_empty.csv').exists()
    rows, summary = convert(*lines, empty=True)
    assert rows == ['run/a-_b_000010_000020,4,0,0,1,1,1,0']
    assert (tmp_path / 'out_empty.csv').read_text().splitlines() == [
        'run/a-_b_000010_000020,5',
        'run/a-_b_000010_000020,6.5',
    ]
    assert summary.files == [
        str(tmp_path / name) for name in ('out.csv', 'out_empty.csv')
    ]
    assert summary.num_empty == 2


def test_folders_of_frames(convert, clips, tmp_path):
    folder = clips('a_000011_000015/img_00001.jpg', 'a_000010_000020.mp4')
    rows, _ = convert('a,12.5,0,0,1,1,1', folder=folder, frames=True)
    assert rows == ['a_000011_000015,1.5,0,0,1,1,1,0']
    assert list(find_clips(folder)['a']) == [Clip('a_000010_000020', 10, 20)]


@pytest.fixture(params=['videos', 'frames'])
def short_clips(request, tmp_path, write_video, write_frames):
    """Options for clips that last 4 s of the 10 s in their names; c cannot be read."""
    folder = tmp_path / 'clips'
    frames = request.param == 'frames'
    for name in ('a_000000_000010', 'a_000003_000013', 'b_000000_000010'):
        if frames:
            write_frames(f'clips/{name}', num_frames=40)
        else:
            write_video(f'clips/{name}.mp4', num_frames=40, fps=10)
    if frames:
        (folder / 'c_000000_000010').mkdir()
    else:
        (folder / 'c_000000_000010.mp4').write_text('x')
    return dict(folder=str(folder), frames=frames, fps=10, lengths=True)


def test_clips_that_are_shorter_than_their_names_say(convert, short_clips):
    box = '0,0,1,1,1'
    lines = [f'a,4,{box}', f'a,6,{box}', f'b,4.1,{box}', f'c,1,{box}', f'b,4,{box}']
    rows, summary = convert(*lines, **short_clips)
    assert rows == [
        'a_000000_000010,4,0,0,1,1,1,0',
        'a_000003_000013,3,0,0,1,1,1,0',  # the other is nearer by its name
        'b_000000_000010,4,0,0,1,1,1,0',
    ]
    assert (summary.num_beyond, summary.num_between) == (1, 0)
    assert (summary.num_keyframes, summary.num_clips) == (3, 3)
    assert list(summary.unreadable) == ['c_000000_000010']
    assert (summary.missing_videos, summary.num_without_video) == (['c'], 1)
    _, summary = convert(*lines, **{**short_clips, 'lengths': False})
    assert (summary.num_keyframes, summary.num_beyond, summary.unreadable) == (5, 0, {})


def test_only_clips_that_are_written_are_opened(convert, short_clips):
    lines = ('b,1,0,0,1,1,1', 'c,1')
    assert not convert(*lines, **short_clips)[1].unreadable
    _, summary = convert(*lines, **short_clips, empty=True)
    assert list(summary.unreadable) == ['c_000000_000010']
    assert summary.num_empty == 0


def test_no_clip_that_can_be_read(convert, short_clips):
    why = 'holds no frame named' if short_clips['frames'] else 'cannot be read as a vi'
    with pytest.raises(UserError, match=f'shows any of the 1 keyframes .*; .*{why}'):
        convert('c,1,0,0,1,1,1', **short_clips)


def test_accepted_on_purpose(convert, clips, tmp_path):
    file = tmp_path / 'dos.csv'
    text = (
        ' a-_b , 14.0 ,-0.01,0,1.05,1,1\r\n\r\na-_b,0014,0,0,1,1,1\r\n'
        'a-_b,14,0,0,1,1,2\r\n'
    )
    file.write_bytes(codecs.BOM_UTF8 + text.encode())
    out = tmp_path / 'dos_out.csv'
    folder = clips('a-_b_000010_000020.mp4')
    summary = convert_ava_kinetics([file, file], out, clips=folder, lengths=False)
    assert out.read_text().splitlines() == [
        'a-_b_000010_000020,4,0,0,1,1,1,0',
        'a-_b_000010_000020,4,0,0,1,1,2,0',
    ]
    assert summary.num_repeated > 0
    assert summary.num_clipped > 0


@pytest.mark.parametrize(
    'line',
    [
        'a-_b,14,0,0,1,1',
        ',14,0,0,1,1,1',
        'a-_b,soon,0,0,1,1,1',
        'a-_b,-1',
        'a-_b,14,0,0,200,100,1',
        'a-_b,14,0,0,nan,1,1',
        'a-_b,14,0.9,0,0.1,1,1',
        'a-_b,14,0,0,1,1,0',
        'a-_b,14,0,0,1,1,1.5',
        'a-_b,14,0,0,1,1,',
    ],
)
def test_a_faulty_line_ends_in_one_sentence(convert, tmp_path, line):
    words = rf"v1.0.csv, line 2: '{line}' is not video_id,timestamp,.*; correct or"
    with pytest.raises(UserError, match=words):
        convert('a-_b,14,0,0,1,1,1', line, 'x')
    assert not list(tmp_path.glob('out*'))


def test_nothing_to_convert(convert, clips, tmp_path):
    good = 'a,14,0,0,1,1,1'
    with pytest.raises(UserError, match='holds no box; give kinetics_train'):
        convert('a,14')
    with pytest.raises(
        ValueError, match=r'shows any of the 1 keyframes.*of this split'
    ):
        convert(good, folder=clips('b_000010_000020.mp4'))
    with pytest.raises(UserError, match=r"filename_tmpl='x\.jpg' does not say"):
        convert(good, filename_tmpl='x.jpg')
    with pytest.raises(UserError, match=r'none has no video file .*; correct --clips'):
        convert(good, folder=str(tmp_path / 'none'))
    with pytest.raises(UserError, match='or give --frames'):
        find_clips(TOOL.parent)
    with pytest.raises(UserError, match='or leave out --frames'):
        find_clips(clips(), frames=True)
    with pytest.raises(UserError, match="'a,b/c_000000_000010' has a comma"):
        convert('c,1,0,0,1,1,1', folder=clips('a,b/c_000000_000010.mp4'))


def test_files_that_are_not_text(clips, tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'utf16').write_text('a,14\nb,15', encoding='utf-16')
    (tmp_path / 'latin').write_bytes(b'a,14\n\xe9,15')
    (tmp_path / 'zip').write_bytes(b'PK\x03\x04')
    for name, words in (
        ('none', 'none: .*; '),
        ('folder', 'folder: .*; '),
        ('utf16', "utf16: .*'utf-8' codec.*; give a published csv file"),
        ('latin', "latin: .*'utf-8' codec.*position 5"),
        ('zip', 'zip, line 1: .*; correct or remove the line'),
    ):
        with pytest.raises(UserError, match=words):
            convert_ava_kinetics([tmp_path / name], tmp_path / 'o.csv', clips=clips())


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as leave:
            assert leave.code == 1
        return capsys.readouterr()

    return run


def test_the_tool(run, write_text, write_video, clips, tmp_path):
    box = '0,0,1,1,1'
    lines = (f'a,12,{box}', f'a,18,{box}', 'a,13', 'a,99', f'b,3,{box}', f'c,3,{box}')
    file = write_text('in.csv', *lines)
    write_video('clips/a_000010_000020.mp4', num_frames=40, fps=10)
    folder = clips('c_000000_000010.mp4')
    args = (file, '--clips', folder, '--out', tmp_path / 'o.csv')
    out, err = run(*args)
    assert '6/6' in err  # the progress
    assert out.splitlines() == [
        '1 clips, 1 keyframes, 1 persons',
        f'2 keyframes were left out: {folder} has no clip of their 2 videos (b, c).',
        '1 keyframes were left out: no clip of their videos shows them.',
        '1 keyframes were left out: their clips end before them.',
        '1 clips cannot be read and count as missing (c_000000_000010).',
        '1 keyframes were left out: they have no person; --empty takes them as '
        'person-free.',
        f'written: {tmp_path / "o.csv"}',
    ]
    out, err = run(*args, '--empty', '--no-lengths')
    assert '2 clips, 3 keyframes' in out
    assert '1 keyframes are taken as person-free.' in out
    assert err == ''
    out, err = run(write_text('bad.csv', 'a'), *args[1:])
    assert out == ''
    assert [line[:7] for line in err.splitlines()] == ['error: ']
