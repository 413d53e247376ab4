import gc
import os
from itertools import product
from multiprocessing import get_context

import av
import cv2
import numpy as np
import pytest

from stmixer_mm.datasets.videos import (
    MAX_OPEN,
    DamagedVideo,
    _shared,
    open_video,
    shared_video,
)


def copy_packets(source, target, **options):
    """The same video without re-encoding."""
    with av.open(source) as reader, av.open(target, 'w', options=options) as copy:
        stream = copy.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux():
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    return target


@pytest.mark.parametrize('share', [0.02, 0.5, 0.9])
@pytest.mark.parametrize('index', ['at the end', 'in front'])
def test_a_truncated_video(write_video, tmp_path, frame_number, index, share):
    """It is told; with its index in front, frames are read as far as they go."""
    path = write_video(size=(320, 240))
    if index == 'in front':
        path = copy_packets(path, tmp_path / 'front_clip.mp4', movflags='faststart')
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(ValueError, match=r'clip.mp4 \(\d+ bytes\) cannot be read'):
        open_video(path)
    if index == 'in front' and share > 0.4:
        damage = []
        reader = open_video(path, damage.append)
        ((start, end),) = [error.stretch for error in damage]
        assert 1 < start == pytest.approx(len(reader) / 10) and end == pytest.approx(4)
        last = len(reader) - 2  # the last one is there in part
        assert frame_number(reader.get_batch([last])[0]) == last


def open_files():
    return len(os.listdir('/proc/self/fd'))


def test_the_videos_used_last_stay_open_until_they_change(write_video):
    names = [f'{number}.mp4' for number in range(MAX_OPEN + 1)]
    paths = [str(write_video(name, num_frames=2)) for name in names]
    _shared.cache_clear()
    gc.collect()  # what earlier tests left open
    num_open = open_files()
    first, second = (shared_video(path) for path in paths[:2])
    for path in [*paths[2:-1], paths[0], paths[-1]]:  # the first is used again
        shared_video(path)
    assert shared_video(paths[0]) is first
    assert shared_video(paths[1]) is not second
    del first, second
    assert open_files() == num_open + MAX_OPEN
    write_video('0.mp4', num_frames=12)
    assert len(shared_video(paths[0])) == 12


def decode_last(paths):
    for path in paths:
        shared_video(path)
    return shared_video(path).get_batch([30])[0]


def test_a_forked_process_opens_its_own(write_video, frame_number):
    """The threads that scale its large frames do not go along; it must not end them."""
    path = str(write_video(size=(768, 576)))
    shared_video(path).get_batch([3, 20])
    other_videos = [str(write_video(f'{n}.mp4', num_frames=2)) for n in range(MAX_OPEN)]
    with get_context('fork').Pool(1) as pool:
        frame = pool.apply_async(decode_last, [[*other_videos, path]]).get(timeout=60)
    assert frame_number(frame) == 30


EVEN = np.arange(40) / 10
UNEVEN = np.cumsum(np.random.RandomState(0).choice([0.02, 0.1, 0.4], 40))


@pytest.mark.parametrize('rotation', [180, -90])
def test_pictures_are_turned_as_players_turn_them(encode_video, rotation):
    path = encode_video('a.mp4', EVEN[:3], rotation=rotation)
    ok, shown = cv2.VideoCapture(str(path)).read()
    (picture,) = open_video(path).get_batch([0])
    assert ok and picture.shape == shown.shape
    assert np.abs(picture.astype(int) - shown[..., ::-1]).max() < 3


@pytest.fixture
def damaged(encode_video):
    """A video of which frames 12 to 23 hang together, and 15 or so is destroyed."""
    gops = dict(g='12', bf='0', sc_threshold='0')
    path = encode_video('a.mp4', EVEN, size=(320, 240), **gops)
    with av.open(path) as container, open(path, 'r+b') as file:
        packet = [packet for packet in container.demux() if packet.size][15]
        file.seek(packet.pos)
        file.write(bytes([255]) * packet.size)
    return path


def test_damage_lasts_to_the_next_key_frame(damaged, frame_number):
    reader = open_video(damaged)
    numbers = {
        index: picture if picture is None else frame_number(picture)
        for index, picture in reader.pictures(range(40))
    }
    assert numbers == {n: None if n in range(15, 24) else n for n in range(40)}
    cases = {(3, 14, 15): 15, (16, 30): 16, (20, 30): 20, (17, 22): 17}.items()
    for reader.reads_on, (inds, first) in product((False, True), cases):
        words = f'a.mp4: frame {first}, counted from 0, at {first / 10:.3f} s, cannot'
        with pytest.raises(DamagedVideo, match=words) as error:
            reader.get_batch(inds)
        assert error.value.stretch[0] == pytest.approx(first / 10)
    assert [frame_number(picture) for picture in reader.get_batch([14, 24])] == [14, 24]


def test_a_stretch_that_a_file_lacks_is_told(encode_video):
    times, damage = [*EVEN[:20], *(EVEN[20:] + 3)], []
    # Its header says ten frames a second.
    path = encode_video('a.mkv', times, g='10', sc_threshold='0')
    reader = open_video(path, damage.append)
    assert len(open_video(path)) == 40
    assert reader.gaps == [error.stretch for error in damage]
    np.testing.assert_allclose(reader.gaps, [(2, 5)])
    with pytest.raises(DamagedVideo, match=r'cannot be read from 2\.000 s to 5\.000 s'):
        reader.get_batch([15, 25])
    assert len(reader.get_batch([15, 19])) == len(reader.get_batch([20, 25])) == 2


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_pauses_between_uneven_frames_are_none(encode_video, name):
    assert open_video(encode_video(name, UNEVEN * 3)).gaps == []
