"""stmixer clips: what is cut shows the frames of its stretch, and no others."""

import numpy as np
import pytest
from run_tool import run_and_fail, run_tool

from stmixer_mm.apis.tracking import list_tubes
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.structures import Action, Keyframe, Person, VideoDetections


@pytest.fixture
def read_numbers(frame_number):
    """Numbers and times of the frames of a file."""

    def read(path):
        video = open_video(path)
        pictures = video.pictures(range(len(video)))
        return [frame_number(picture) for _, picture in pictures], video.times

    return read


@pytest.fixture
def folder(write_video, tmp_path):
    """Results of a video of 4 s at 10 fps: person 0 waves twice, 1 sits."""
    keyframes = [
        Keyframe(
            time_s=float(second),
            frame_index=10 * second,
            persons=[
                Person(
                    id=number,
                    bbox=(0, 0, 9, 9),
                    actions=[Action(action, 0.9)] if second in seconds else [],
                )
                for number, action, seconds in ((0, 'wave', (0, 3)), (1, 'sit', (1,)))
            ],
        )
        for second in range(4)
    ]
    found = tmp_path / 'found'
    found.mkdir()
    VideoDetections(
        source=str(write_video('a.mp4')),
        fps=10,
        total_frames=40,
        keyframes=keyframes,
        tubes=list_tubes(keyframes),
    ).save(found / 'a.json')
    return found


def test_names_tell_video_person_second_and_action(folder, read_numbers):
    run_tool('clips', folder, '--action', 'wave', '--pad', '0.5')
    clips = folder / 'clips'
    assert sorted(path.name for path in clips.iterdir()) == [
        'a_person0_0.00s_wave.mp4',
        'a_person0_2.50s_wave.mp4',
    ]
    numbers, times = read_numbers(clips / 'a_person0_2.50s_wave.mp4')
    assert numbers == [*range(25, 40)]
    np.testing.assert_allclose(times, np.arange(15) / 10, atol=2e-3)


def test_stretches_that_touch_are_one_clip(folder, read_numbers, tmp_path):
    run_tool('clips', folder, '--action', 'wave', '--pad', '1', '--out', tmp_path / 'x')
    (clip,) = (tmp_path / 'x').iterdir()
    assert read_numbers(clip)[0] == [*range(40)]


def test_actions_that_are_not_there(folder, capsys):
    line = run_and_fail(capsys, 'clips', folder, '--action', 'jump')
    assert 'no stretch of jump' in line and 'sit, wave' in line
    assert not (folder / 'clips').exists()


@pytest.mark.parametrize('source', ['gone.mp4', 'rtsp://camera/1'])
def test_videos_that_are_not_there(folder, capsys, source):
    detections = VideoDetections.load(folder / 'a.json')
    detections.source = source
    detections.save(folder / 'a.json')
    assert source in run_and_fail(capsys, 'clips', folder, '--action', 'wave')
