from functools import partial

import numpy as np
import pytest

from stmixer_mm.datasets.frames import find_source, keyframe_index


@pytest.mark.parametrize(
    'timestamp, fps, total, start, index',
    [
        (902, 30, 27030, 900, 60),  # AVA
        (1, 29.97, 300, 0, 30),
        (4, 25, 100, 0, 99),  # the very end shows the last frame
        (10, 300 / 10.01, 300, 0, 299),  # rounds up to the end
        (0.5, 25, 100, 0, 13),  # of two equally near the later
        (0.54, 25, 100, 0, 14),
        (7, 1, 20, 0, 7),  # timestamps that count frames
    ],
)
def test_keyframe_index(timestamp, fps, total, start, index):
    assert index == keyframe_index(
        timestamp, fps=fps, total_frames=total, timestamp_start=start
    )


@pytest.mark.parametrize('fps', [10, 24000 / 1001, 29.97, 30])
def test_even_frame_times_say_the_same_as_their_rate(fps):
    clock = dict(fps=fps, total_frames=90)
    times = np.arange(90) / fps
    for timestamp in [*np.linspace(0, 90 / fps, 1000), *(np.arange(90) + 0.5) / fps]:
        index = keyframe_index(timestamp, frame_times=times, **clock)
        assert index == keyframe_index(timestamp, **clock)


def test_uneven_frames_are_found_by_their_own_times():
    clock = dict(fps=4 / 3, total_frames=4, frame_times=np.array([0, 0.1, 0.2, 2.25]))
    places = {0: 0, 0.04: 0, 0.06: 1, 0.15: 2, 1.2: 2, 1.3: 3, 2.9: 3, 3.0: 3}
    assert {t: keyframe_index(t, **clock) for t in places} == places
    with pytest.raises(ValueError, match='timestamp 4 s lies outside'):
        keyframe_index(4, **clock)


def test_videos_are_found_with_and_without_suffix(tmp_path):
    (tmp_path / 'folder').mkdir()
    for name in ('a.mp4', 'b.mkv', 'folder/c.avi'):
        (tmp_path / name).touch()
    folder, find = str(tmp_path), partial(find_source, use_frames=False)
    names = {'a.mp4': 'a.mp4', 'a': 'a.mp4', 'b': 'b.mkv', 'folder/c': 'folder/c.avi'}
    for name, file in names.items():
        assert find(folder, name) == f'{folder}/{file}'
    assert find(folder, 'z') is find(folder, 'folder') is None
    assert find_source(folder, 'a.mp4', use_frames=True) is None
    assert find_source(folder, 'folder', use_frames=True) == f'{folder}/folder'
