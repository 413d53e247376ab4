"""Little videos whose frames tell their own number."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

NUM_BITS = 6  # of a frame's number, each a black or white upright bar


def picture_of(number, size):
    width, height = size
    bits = (number >> np.arange(NUM_BITS)) & 1
    bars = np.repeat(bits, -(-width // NUM_BITS))[:width]
    return np.broadcast_to(
        255 * bars[None, :, None].astype(np.uint8), (height, width, 3)
    ).copy()


@pytest.fixture
def encode_video(tmp_path):
    """Write a video whose frames tell their numbers, from 0, with times in seconds."""

    def encode(name, times, codec='h264', *, rotation=0, size=(96, 64), **options):
        path, tick = tmp_path / name, Fraction(1, 1000)
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(path, 'w') as target:
            stream = target.add_stream(codec, rate=10, options=options)
            stream.width, stream.height = size
            stream.pix_fmt, stream.codec_context.time_base = 'yuv420p', tick
            if rotation:
                stream.set_display_rotation(rotation)
            for number, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(picture_of(number, size))
                frame.pts, frame.time_base = round(time / tick), tick
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
        return path

    return encode


@pytest.fixture
def write_video(encode_video):
    """Write such a video with even times."""

    def write(name='clip.mp4', num_frames=40, fps=10, size=(64, 48)):
        return encode_video(name, np.arange(num_frames) / fps, 'mpeg4', size=size)

    return write


@pytest.fixture
def write_frames(tmp_path):
    """Write the same frames as pictures into a folder."""

    def write(name='clip', num_frames=40, start_index=1, size=(64, 48)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for index in range(num_frames):
            path = folder / f'img_{index + start_index:05}.jpg'
            assert cv2.imwrite(str(path), picture_of(index, size))
        return folder

    return write


@pytest.fixture
def frame_number():
    """The number that a decoded frame tells."""

    def read(picture):
        bars = np.array_split(picture.mean(axis=(0, 2)), NUM_BITS)
        return sum(2**bit for bit, bar in enumerate(bars) if np.median(bar) > 128)

    return read
