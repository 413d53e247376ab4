"""A clip shows the frames of its span, and no others."""

import numpy as np
import pytest

from stmixer_mm.datasets.videos import open_video
from stmixer_mm.projects.results.clips import cut_clip

ENCODINGS = {
    'bframes.mp4': dict(codec='h264', g='12'),
    'bframes.mkv': dict(codec='h264', g='12'),
    'short.mp4': dict(codec='h264', g='1'),
    'plain.mov': dict(codec='h264', bf='0'),
    'plain.avi': dict(codec='mpeg4'),
    'stream.ts': dict(codec='h264', g='12'),
}
SPANS = [(0, 1), (0.7, 2), (1.2, 2.4), (1.3, 1.9), (3, 9), (2.5, 2.5)]


@pytest.mark.parametrize('name', ENCODINGS)
def test_a_clip_shows_the_frames_of_its_span(
    encode_video, frame_number, tmp_path, name
):
    path = encode_video(name, np.arange(40) / 10, **ENCODINGS[name])
    video = open_video(path)
    for start, end in SPANS:
        out = tmp_path / 'clip.mp4'
        cut_clip(video, start, end, out, on_damage=None)
        clip, frames = open_video(out), video.part(start, end)
        pictures = clip.pictures(range(len(clip)))
        assert [frame_number(picture) for _, picture in pictures] == [*frames]
        np.testing.assert_allclose(clip.times, np.arange(len(frames)) / 10, atol=2e-3)


@pytest.mark.parametrize('name', ['short.mp4', 'plain.mov', 'plain.avi'])
def test_frames_that_none_after_them_is_needed_for_are_copied(
    encode_video, tmp_path, name
):
    path = encode_video(name, np.arange(40) / 10, **ENCODINGS[name])
    for start, end in SPANS:
        assert cut_clip(open_video(path), start, end, tmp_path / 'clip.mp4', None)
