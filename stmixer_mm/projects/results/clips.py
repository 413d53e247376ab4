"""Stretches of a video as files of their own."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from stmixer_mm.apis.rendering import render_video
from stmixer_mm.datasets.containers import open_container
from stmixer_mm.datasets.videos import OnDamage, Video, open_video
from stmixer_mm.errors import UserError


def cut_clip(
    video: Video, start: float, end: float, out: Path, on_damage: OnDamage
) -> bool:
    """Write the frames of a video file that begin between two times, with their sound.

    They are copied without loss if the copy shows these frames alone, else encoded as
    by :func:`.render_video`.

    Args:
        video: From :func:`.open_video`.
        start, end: Seconds.
        out: An mp4 file in a folder that is there.
        on_damage: See :func:`.render_video`.

    Returns:
        Whether they were copied.

    Raises:
        UserError: the file cannot be written.
    """
    frames = video.part(start, end)
    with TemporaryDirectory(dir=out.parent) as folder:
        copy = Path(folder, out.name)
        with suppress(av.FFmpegError, LookupError, ValueError):
            _copy_packets(video, frames, copy)
            if _shows(copy, video, frames):
                copy.replace(out)
                return True
    render_video(video, (), out, start=start, end=end, on_damage=on_damage)
    return False


def _copy_packets(video: Video, frames: range, out: Path) -> None:
    """Copy the packets from the key frame before on.

    What is before the first frame gets negative times, which the edit list of an mp4 file
    hides.
    """
    begin_s = video.start_s + float(video.times[frames[0]])
    stop_s = video.start_s + video.end_of(frames[-1])
    source, stream = open_container(f'file:{video.path}')
    with source, av.open(f'file:{out}', 'w', format='mp4') as target:
        audio = source.streams.best('audio')
        copies = {
            original: target.add_stream_from_template(original)
            for original in (stream, audio)
            if original is not None
        }
        source.seek(round(begin_s / stream.time_base), stream=stream)
        packets = []
        for packet in source.demux(*copies):
            stamp = packet.dts if packet.dts is not None else packet.pts
            if stamp is None:  # marks the end of a stream
                continue
            if packet.stream is stream and stamp * packet.time_base >= stop_s:
                break
            packets.append(packet)
        _fill_in_dts([packet for packet in packets if packet.stream is stream])
        for packet in packets:
            time_s = packet.pts * packet.time_base
            is_early = packet.stream is audio and time_s < begin_s
            # Half of the shortest step of usual clocks.
            if not is_early and time_s <= stop_s - 5e-4:
                offset = round(begin_s / packet.time_base)
                packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
                packet.stream = copies[packet.stream]
                target.mux(packet)


def _fill_in_dts(packets: list[av.Packet]) -> None:
    """Give those packets a time of decoding whose container tells the later ones alone."""
    following = packets[-1].pts
    for packet in reversed(packets):
        packet.dts = following - 1 if packet.dts is None else packet.dts
        following = packet.dts


def _shows(path: Path, video: Video, frames: range) -> bool:
    """True if a file shows these frames of a video, to the bit, at their times."""
    try:
        copy = open_video(path)
    except UserError:
        return False
    times = video.times[frames.start : frames.stop] - video.times[frames.start]
    if len(copy) != len(frames) or not np.allclose(copy.times, times, atol=1e-3):
        return False
    pairs = zip(copy.pictures(range(len(copy))), video.pictures(frames), strict=True)
    return all(
        picture is not None and np.array_equal(picture, original)
        for (_, picture), (_, original) in pairs
    )
