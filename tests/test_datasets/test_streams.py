from weakref import ref

import cv2
import numpy as np
import pytest
from tiny_stmixer import write_video

from stmixer_mm.datasets.clips import ClipCutter
from stmixer_mm.datasets.streams import (
    FrameStream,
    list_sources,
    name_source,
    open_source,
)
from stmixer_mm.datasets.videos import Video, open_video
from stmixer_mm.errors import UserError

GOOD = np.zeros((4, 6, 3), np.uint8)


def numbered(times):
    """Frames of which each shows its number, with their times."""
    return [(time_s, GOOD + index) for index, time_s in enumerate(times)]


def cut(frames, spans=(3, 2, 0.0), **part):
    source = frames if isinstance(frames, Video) else FrameStream(frames, fps=10)
    return list(ClipCutter(source, spans, **part))


EVEN = np.arange(27) / 10
TIMES = dict(
    even=EVEN, uneven=np.cumsum(np.random.RandomState(0).choice([0.02, 0.1, 0.4], 27))
)
PARTS = dict(
    each=dict(interval_s=0.033),
    some=dict(interval_s=0.3, start=0.11, end=0.75),
    apart=dict(inside=True, interval_s=0.45, end=0.75),
    ahead=dict(spans=(5, 0, 0.2), interval_s=0.1),
)


@pytest.mark.parametrize('part', PARTS.values(), ids=PARTS)
@pytest.mark.parametrize('times', TIMES.values(), ids=TIMES)
def test_streams_are_cut_as_files_are(times, part, encode_video, frame_number):
    video = open_video(encode_video('a.mkv', times, g='9'))
    clips, pictures = cut(video, **part), video.get_batch(range(27))
    streamed = cut(zip(video.times.tolist(), pictures, strict=True), **part)
    assert len(clips) == len(streamed) > 0
    for ours, other in zip(clips, streamed, strict=True):
        for name in ('time_s', 'frames', 'size'):
            assert getattr(ours, name) == getattr(other, name)
        np.testing.assert_array_equal(ours.times, other.times)
        if 'spans' not in part or times is EVEN:  # a file knows its later frames
            assert ours.frame_index == other.frame_index
        for clip in (ours, other):
            pictures = clip.sample['video_reader'].get_batch(range(len(clip.frames)))
            assert [*map(frame_number, pictures)] == [*clip.frames]


def test_files_and_streams_begin_and_end_inside_of_long_frames_alike(encode_video):
    video = open_video(encode_video('a.mkv', TIMES['uneven'], g='9'))
    frames = numbered(video.times.tolist())
    for start, end in np.random.RandomState(0).uniform(0, video.times[-1], (60, 2)):
        part = dict(inside=True, start=start, end=max(start, end) + 0.1)
        sources = video, FrameStream(frames)
        cutters = [ClipCutter(source, (3, 2, 0.0), **part) for source in sources]
        ours, other = ([clip.frames for clip in cutter] for cutter in cutters)
        assert ours == other
        for cutter in cutters:
            shown = [n for n in range(27) if cutter.shows(n)]
            assert shown == [*video.part(start, part['end'])]


@pytest.mark.parametrize('interval', [1e-9, 0.035, 0.05, 0.2, 5])
def test_keyframes_are_the_frames_nearest_to_even_times(interval):
    for seed in range(20):
        random = np.random.RandomState(seed)
        times = np.cumsum(random.choice([0.03, 0.04, 0.1, 0.7], 40))
        times -= times[0]
        start, end = sorted(random.uniform(0, times[-1], 2))
        even_times = np.arange(start, end, max(interval, 1e-3))
        nearest = np.abs(times - even_times[:, None]).argmin(axis=1)
        clips = cut(numbered(times), interval_s=interval, start=start, end=end)
        assert [clip.frame_index for clip in clips] == np.unique(nearest).tolist()
        for clip in clips:
            nearest_times = even_times[nearest == clip.frame_index]
            assert nearest_times[0] - 2e-3 <= clip.time_s <= nearest_times[-1] + 2e-3
            inside = [n for n in range(40) if -3 <= n - clip.frame_index <= 2]
            assert [*clip.frames] == inside
            np.testing.assert_allclose(clip.times, times[inside])


def test_a_clip_is_cut_when_its_last_frame_is_here_and_no_more_are_kept():
    references = []

    def frames():
        for number in range(60):
            picture = GOOD + number
            references.append(ref(picture))
            yield number / 10, picture

    for clip in ClipCutter(FrameStream(frames()), (3, 2, 0.0)):
        assert len(references) == clip.frame_index + 3
        assert sum(picture() is not None for picture in references) <= 3 + 2 + 2


@pytest.mark.parametrize('frames', [[GOOD, GOOD[:2]], [(0, GOOD), (0, GOOD)]])
def test_what_is_no_frame_is_refused(frames):
    with pytest.raises(UserError, match='frame 1'):
        list(FrameStream(frames))


@pytest.fixture
def folder(tmp_path):
    write_video(tmp_path / 'b.MP4')
    write_video(tmp_path / 'a.mp4')
    (tmp_path / 'pictures').mkdir()
    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / 'pictures' / f'{number}.png'), GOOD + number)
    (tmp_path / 'list.txt').write_text('a.mp4\r\n\n gone.mp4 \nrtsp://host/live\n')
    return tmp_path


def test_sources_are_listed(folder, capsys):
    pictures = str(folder / 'pictures')
    videos = [str(folder / 'a.mp4'), str(folder / 'b.MP4')]
    (folder / '._a.mp4').touch()
    for _ in range(2):
        assert list_sources(folder) == videos
    skipped = capsys.readouterr().err
    assert skipped.count('\n') == 1 and '._a.mp4, list.txt' in skipped
    assert list_sources(pictures) == [pictures]
    assert list_sources(str(folder / '*.mp4')) == videos[:1]
    listed = [videos[0], 'gone.mp4', 'rtsp://host/live']
    assert list_sources(str(folder / 'list.txt')) == listed
    assert list_sources([str(folder / '[ab].mp4'), 0]) == [videos[0], 0]
    for source in ('0', 0, '-', 'http://host/a.txt', GOOD[None], videos[1]):
        assert list_sources(source)[0] is source
    assert list_sources([GOOD, GOOD]) == [[GOOD, GOOD]]
    with pytest.raises(UserError, match='names 2 sources'):
        open_source(folder)
    for secret in ('me:secret', 'me:s@cr/e t:', 'me'):
        assert name_source(f'rtsp://{secret}@host/x') == 'rtsp://host/x'
    assert name_source('http://host/@x?key=a@b') == 'http://host/@x?key=***'
    assert name_source('\udcff\r\x1b[1m.mp4') == r'\udcff\r\x1b[1m.mp4'


def test_pictures_come_in_the_order_of_their_numbers(folder):
    stream = open_source(folder / 'pictures', fps=2)
    numbers = [(time_s, picture[0, 0, 0]) for time_s, picture in stream]
    assert numbers == [(0, 1), (0.5, 2), (1, 10)]
    (folder / 'pictures' / '3.png').write_bytes(b'x')
    with pytest.raises(UserError, match=r'3\.png cannot be read as a picture'):
        list(open_source(folder / 'pictures'))
