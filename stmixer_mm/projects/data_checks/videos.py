"""Check that the videos of a dataset can be read at its keyframes."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import copy

import mmcv
import numpy as np

from stmixer_mm.datasets.frames import frame_numbers, is_stretched
from stmixer_mm.datasets.person_dataset import PersonDataset
from stmixer_mm.datasets.transforms import OpenVideo, SampleKeyframeClip
from stmixer_mm.errors import UserError
from stmixer_mm.projects.data_checks.reports import Report

Progress = Callable[[Iterable], Iterable]


def check_videos(
    dataset: PersonDataset,
    num_frames: Mapping[str, int],
    report: Report,
    *,
    decode: bool,
    progress: Progress,
) -> None:
    """Open all videos of a dataset and, with ``decode``, decode their keyframes.

    Args:
        dataset: Of which all samples are checked.
        num_frames: Of the annotated videos, as far as the annotation tells them.
        report: Takes the findings.
        decode: Whether to read the frames.
        progress: Wraps the list of the videos.
    """
    samples = defaultdict(list)
    for index in range(len(dataset)):
        samples[dataset.get_data_info(index)['video_id']].append(index)
    report.num_videos = len(samples)
    # Without a sampler of ours only the keyframes are looked at.
    sampler = dataset.find_transform(SampleKeyframeClip)
    sampler = sampler or SampleKeyframeClip(clip_len=1, frame_interval=1)
    for name in progress(list(samples)):
        infos = [dataset.get_data_info(index) for index in samples[name]]
        place = report.place(name)
        path = infos[0][dataset.path_key]
        try:
            video = _open(infos[0])
        except UserError as error:
            report.error('unreadable', place, str(error))
            continue
        infos = [{**info, **video} for info in infos]
        size = _check_keyframes(infos, sampler, report, decode)
        found, wanted = video['total_frames'], num_frames.get(name)
        if wanted not in (None, found):
            message = (
                f'{path} has {found} frames, but the annotation is of {wanted}; boxes '
                'may belong to other frames.'
            )
            report.warn('length', place, message)
        shapes = {info.get('annotated_size') for info in infos} - {None}
        for height, width in sorted(shapes):
            if size and is_stretched((height, width), size):
                message = (
                    f'{path} is {size[1]} x {size[0]}, but its annotation is of '
                    f'pictures of {width} x {height}; correct it, unless the frames '
                    'were stretched.'
                )
                report.warn('shape', place, message)
        for start, end in () if dataset.use_frames else video['video_reader'].gaps:
            message = (
                f'{path} has no frame from {start:.3f} s to {end:.3f} s; fetch it again '
                'unless it was recorded so.'
            )
            report.warn('gap', place, message)


def _open(info: dict) -> dict:
    """Keys that opening the video of a sample sets; its frames must have no gaps."""
    if 'filename' in info:
        return OpenVideo().transform(dict(filename=info['filename']))
    folder, tmpl, start = (
        info[key] for key in ('frame_dir', 'filename_tmpl', 'start_index')
    )
    numbers = frame_numbers(folder, tmpl, start)
    total = info.get('total_frames') or numbers[-1] - start + 1
    gaps = sorted(set(range(start, start + total)) - set(numbers))
    if gaps:
        raise UserError(
            f'{folder} lacks {len(gaps)} of its {total} frames, first '
            f'{tmpl.format(gaps[0])}; extract them again.'
        )
    return dict(total_frames=total)


def _check_keyframes(
    infos: list[dict], sampler: SampleKeyframeClip, report: Report, decode: bool
) -> tuple[int, int] | None:
    """Check that clips fit in and keyframes can be read; (h, w) of one that was."""
    size = None
    faults: dict[str, tuple] = {}  # one for all keyframes of a short video
    for info in sorted(infos, key=lambda info: info['timestamp']):
        place = report.place(info['img_key'], info['video_id'])
        try:
            clip = sampler.transform(copy(info))['frame_inds']
        except UserError as error:
            faults.setdefault(str(error), ('clip', place))
            continue
        keyframe = int(clip[sampler.place])
        try:
            size = _read(info, keyframe).shape[:2] if decode else None
        except Exception:  # cv2's errors derive from nothing narrower
            source = info.get('filename') or info['frame_dir']
            message = (
                f'frame {keyframe} of {source}, timestamp {info["timestamp"]:g}, is '
                'missing or damaged; fetch, extract or encode the video again.'
            )
            faults.setdefault(message, ('unreadable', place))
    if len(faults) > 1 and len({place for _, place in faults.values()}) == 1:
        # Without lines, one finding stands for a whole video.
        message, where = next(iter(faults.items()))
        faults = {f'{message[:-1]} ({len(faults)} such keyframes).': where}
    for message, where in faults.items():
        report.error(*where, message)
    return size


def _read(info: dict, index: int) -> np.ndarray:
    """A frame; None or any error if it is damaged."""
    if 'video_reader' in info:
        return info['video_reader'].get_batch([index])[0]
    name = info['filename_tmpl'].format(index)
    return mmcv.imread(os.path.join(info['frame_dir'], name))
