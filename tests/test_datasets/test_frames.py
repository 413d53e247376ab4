import copy
import os
import pickle
import struct
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from stmixer_mm.datasets.frames import (
    MAX_OPEN,
    OpenVideos,
    clip_indices,
    count_decoded,
    count_frames,
    find_source,
    is_stretched,
    keyframe_index,
    open_video,
    split_filename_tmpl,
)


@pytest.mark.parametrize(
    'timestamp, fps, total, start, index',
    [
        (902, 30, 27030, 900, 60),  # AVA
        (0, 25, 100, 0, 0),
        (1, 29.97, 300, 0, 30),
        (9, 29.97, 300, 0, 270),
        (1.5, 24, 100, 0, 36),
        (4, 25, 100, 0, 99),  # the very end shows the last frame
        (10, 300 / 10.01, 300, 0, 299),  # rounds up to the end
        (7, 1, 20, 0, 7),  # timestamps that count frames
    ],
)
def test_keyframe_index(timestamp, fps, total, start, index):
    assert index == keyframe_index(
        timestamp, fps=fps, total_frames=total, timestamp_start=start
    )


@pytest.mark.parametrize('timestamp, start', [(899, 900), (5, 0), (904.1, 900)])
def test_timestamps_outside_the_video(timestamp, start):
    with pytest.raises(ValueError, match=f'timestamp {timestamp} s lies outside'):
        keyframe_index(timestamp, fps=25, total_frames=100, timestamp_start=start)


@pytest.mark.parametrize('clip_len, interval', [(1, 1), (4, 16), (7, 3), (32, 2)])
def test_the_keyframe_is_the_middle_entry_of_an_even_grid(clip_len, interval):
    indices = clip_indices(
        500, clip_len=clip_len, frame_interval=interval, total_frames=1000
    )
    assert indices[clip_len // 2] == 500
    assert (np.diff(indices) == interval).all()


def test_frames_beyond_an_end_repeat_it():
    kwargs = dict(clip_len=4, frame_interval=10, total_frames=50)
    assert clip_indices(5, **kwargs).tolist() == [0, 0, 5, 15]
    assert clip_indices(45, **kwargs).tolist() == [25, 35, 45, 49]
    moved = clip_indices(30, offsets=[-3, 0, 2, 4], **kwargs)
    assert moved.tolist() == [7, 20, 32, 44]


def test_videos_are_found_with_and_without_suffix(tmp_path):
    for name in ('a.mp4', 'b.mkv', 'sub/c.avi'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / 'folder').mkdir()
    folder, find = str(tmp_path), partial(find_source, use_frames=False)
    found = {name: find(folder, name) for name in ('a.mp4', 'a', 'b', 'sub/c')}
    assert found == {
        'a.mp4': os.path.join(folder, 'a.mp4'),
        'a': os.path.join(folder, 'a.mp4'),
        'b': os.path.join(folder, 'b.mkv'),
        'sub/c': os.path.join(folder, 'sub/c.avi'),
    }
    assert find(folder, 'z') is None
    assert find(folder, 'folder') is None
    assert find_source(folder, 'a.mp4', use_frames=True) is None
    assert find_source(folder, 'folder', use_frames=True) == f'{folder}/folder'


def boxes_of(data, start=0, stop=None):
    """(type, start, stop) of the boxes of an mp4 file or of one of its boxes."""
    stop = len(data) if stop is None else stop
    while start + 8 <= stop:
        size, kind = struct.unpack_from('>I4s', data, start)
        yield kind, start, start + size
        start += size


def with_index_in_front(data):
    """The mp4 file with its index (moov) before its frames (mdat)."""
    found = {kind: data[start:stop] for kind, start, stop in boxes_of(data)}
    moov = bytearray(found.pop(b'moov'))
    assert list(found)[-1] == b'mdat'  # so that all frames move by the index's size

    def shift_offsets(start, stop):
        for kind, low, high in boxes_of(moov, start, stop):
            if kind in (b'trak', b'mdia', b'minf', b'stbl'):
                shift_offsets(low + 8, high)
            elif kind == b'stco':
                (count,) = struct.unpack_from('>I', moov, low + 12)
                for place in range(low + 16, low + 16 + 4 * count, 4):
                    (offset,) = struct.unpack_from('>I', moov, place)
                    struct.pack_into('>I', moov, place, offset + len(moov))

    shift_offsets(8, len(moov))
    frames = found.pop(b'mdat')
    return b''.join([*found.values(), moov, frames])


@pytest.fixture(params=['index at the end', 'index in front'])
def mp4(request, write_video):
    """A good mp4 file in both of its layouts."""
    path = write_video(size=(320, 240))
    if request.param == 'index in front':
        path.write_bytes(with_index_in_front(path.read_bytes()))
    return path


def test_a_video_knows_its_frames_and_rate(mp4):
    reader = open_video(str(mp4))
    assert len(reader) == 40
    assert reader.get_avg_fps() == pytest.approx(10)


@pytest.mark.parametrize('kept', [0.02, 0.5, 0.9])
def test_a_truncated_video_is_told(mp4, kept):
    data = mp4.read_bytes()
    mp4.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match=r'clip.mp4 \(\d+ bytes\) cannot be read'):
        open_video(str(mp4))


@pytest.mark.parametrize('content', [b'', b'no video at all\n' * 100, bytes(10000)])
def test_other_files_are_not_videos(tmp_path, content):
    path = tmp_path / 'clip.mp4'
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf'clip.mp4 \({len(content)} bytes\) cannot be'
    ):
        open_video(str(path))


def test_missing_files_and_folders_are_no_videos(tmp_path):
    with pytest.raises(ValueError, match=r'none.mp4 does not exist'):
        open_video(str(tmp_path / 'none.mp4'))
    with pytest.raises(ValueError, match='is a folder'):
        open_video(str(tmp_path))


def test_a_video_stays_open_until_it_changes(write_video):
    path, videos = str(write_video()), OpenVideos()
    reader = videos.get(path)
    assert videos.get(path) is reader
    write_video(num_frames=12)
    assert len(videos.get(path)) == 12
    os.remove(path)
    with pytest.raises(ValueError, match='does not exist'):
        videos.get(path)


def open_files():
    return len(os.listdir('/proc/self/fd'))


def test_the_videos_used_last_stay_open(write_video):
    paths = [
        str(write_video(f'{number}.mp4', num_frames=2))
        for number in range(MAX_OPEN + 1)
    ]
    videos, before = OpenVideos(), open_files()
    first, second = (videos.get(path) for path in paths[:2])
    for path in [*paths[2:-1], paths[0], paths[-1]]:  # the first is used again
        videos.get(path)
    assert videos.get(paths[0]) is first
    assert videos.get(paths[1]) is not second
    del first, second
    assert open_files() == before + MAX_OPEN


@pytest.mark.parametrize(
    'again', [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))]
)
def test_a_copy_opens_its_own(write_video, again):
    path, videos = str(write_video()), OpenVideos()
    reader = videos.get(path)
    assert again(videos).get(path) is not reader


def decode_in_process(videos, path, queue):
    queue.put(videos.get(path).get_batch([30]).asnumpy())


def test_a_forked_process_opens_its_own(write_video, frame_number):
    path, videos = str(write_video(size=(96, 64))), OpenVideos()
    videos.get(path).get_batch([3, 20])
    context = get_context('fork')
    queue = context.Queue()
    process = context.Process(target=decode_in_process, args=(videos, path, queue))
    process.start()
    try:
        (frame,) = queue.get(timeout=60)
        assert frame_number(frame) == 30
        process.join(timeout=20)
        assert process.exitcode == 0
    finally:
        process.kill()


def test_an_open_video_gives_the_frames_of_one_just_opened(write_video, frame_number):
    path, videos = str(write_video(size=(96, 64))), OpenVideos()
    for frame_inds in ([39], [0, 13], [25, 37], [1, 2, 26], [38, 39], [0]):
        kept = videos.get(path).get_batch(frame_inds).asnumpy()
        assert [frame_number(frame) for frame in kept] == frame_inds
        fresh = open_video(path).get_batch(frame_inds).asnumpy()
        np.testing.assert_array_equal(kept, fresh)


def test_an_open_video_is_at_rest_between_clips(write_video):
    reader = open_video(str(write_video(num_frames=400, size=(96, 64))))
    reader.get_batch([5, 20])
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize(
    ('frame_inds', 'key_inds', 'decoded'),
    [
        ([0, 1, 2], [0], 3),
        ([4], [0], 5),
        ([4], [0, 3], 2),
        ([1, 4], [0, 3], 4),  # 0 and 1, then 3 and 4
        ([4, 1, 4], [0, 3], 4),
        ([4, 6], [0, 3], 4),  # 3 to 6: on from where it is
        ([3, 4], [0, 3, 4], 2),
    ],
)
def test_decoding_starts_at_key_frames(frame_inds, key_inds, decoded):
    assert count_decoded(frame_inds, key_inds) == decoded


@pytest.mark.parametrize('start_index', [0, 1, 5])
def test_frames_of_a_folder_are_counted(tmp_path, start_index):
    for number in range(start_index, start_index + 7):
        (tmp_path / f'img_{number:05}.jpg').touch()
    (tmp_path / 'thumb.jpg').touch()
    (tmp_path / 'flow_99999.jpg').touch()
    assert count_frames(str(tmp_path), 'img_{:05}.jpg', start_index) == 7


def test_folders_without_frames_are_told(tmp_path):
    with pytest.raises(ValueError, match='none does not exist'):
        count_frames(str(tmp_path / 'none'), 'img_{:05}.jpg', 1)
    Path(tmp_path, 'img_00000.jpg').touch()
    with pytest.raises(ValueError, match='from number 1 on'):
        count_frames(str(tmp_path), 'img_{:05}.jpg', 1)


@pytest.mark.parametrize(
    'size, other, is_so',
    [
        ((240, 320), (120, 160), False),
        ((240, 427), (120, 213), False),
        ((100, 100), (100, 101.9), False),
        ((100, 100), (100, 102.1), True),
        ((240, 320), (320, 240), True),
    ],
)
def test_shapes_that_differ_by_more_than_rounding(size, other, is_so):
    assert is_stretched(size, other) is is_so
    assert is_stretched(other, size) is is_so
    assert is_stretched(size[::-1], other[::-1]) is is_so


@pytest.mark.parametrize(
    'tmpl, name',
    [
        ('img_{:05}.jpg', 'img_00007.jpg'),
        ('frame_{:010d}.jpg', 'frame_0000000007.jpg'),
        ('{}.png', '7.png'),
        ('2_{:08}_0.jpg', '2_00000007_0.jpg'),
    ],
)
def test_the_names_of_frames_have_a_number_somewhere(tmpl, name):
    head, tail = split_filename_tmpl(tmpl)
    assert name.startswith(head) and name.endswith(tail)
    assert int(name.removeprefix(head).removesuffix(tail)) == 7
