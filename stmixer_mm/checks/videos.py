"""Whether the videos of a dataset can be read where its keyframes are."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable

import mmcv
import numpy as np

from stmixer_mm.checks.annotations import Annotated
from stmixer_mm.checks.reports import Place, Report
from stmixer_mm.datasets.frames import (
    describe_folder,
    find_source,
    frame_numbers,
    is_stretched,
)
from stmixer_mm.datasets.person_dataset import PersonDataset
from stmixer_mm.datasets.transforms import OpenVideo, SampleKeyframeClip
from stmixer_mm.datasets.videos import count_decoded
from stmixer_mm.errors import UserError

SLOW_DECODING = 8  # frames decoded for each one that a clip uses
REENCODE = 'ffmpeg -i IN -g 4 -tune fastdecode -an OUT.mp4'

Progress = Callable[[Iterable], Iterable]


def find_videos(
    dataset: PersonDataset, places: dict[str, Place], report: Report
) -> None:
    """Note where each video is, or that it is missing."""
    folder = dataset.data_prefix['img']
    for name, place in places.items():
        path = find_source(folder, name, use_frames=dataset.use_frames)
        report.videos[name] = path or os.path.join(folder, name)
        report.first_lines[name] = place[1]
        if path is None:
            what = 'frame folder' if dataset.use_frames else 'video'
            message = (
                f'the {what} of {name!r} is missing in {describe_folder(folder)}; put '
                'it there, or correct data_prefix or the name.'
            )
            report.error('missing', place, message)


def check_videos(
    dataset: PersonDataset,
    annotated: Annotated,
    report: Report,
    *,
    decode: bool,
    progress: Progress,
) -> None:
    """Open all videos of a dataset and, with ``decode``, decode their keyframes."""
    samples = defaultdict(list)
    for index in range(len(dataset)):
        samples[dataset.get_data_info(index)['video_id']].append(index)
    report.num_videos = len(samples)
    sampler = dataset.find_transform(SampleKeyframeClip)
    opener = dataset.find_transform(OpenVideo)
    is_slow_decoded = sampler and not (opener and opener.keep_frames)
    # Without a sampler of ours only the keyframes are looked at.
    sampler = sampler or SampleKeyframeClip(clip_len=1, frame_interval=1)
    sampler.jitter = False
    slow = []
    for name in progress(list(samples)):
        infos = [dataset.get_data_info(index) for index in samples[name]]
        path, place = infos[0][dataset.path_key], annotated.videos[name]
        try:
            if dataset.use_frames:
                video = _frame_folder(infos[0])
            else:
                video = OpenVideo().transform(dict(filename=path))
        except UserError as error:
            report.error('unreadable', place, str(error))
            continue
        infos = [{**info, **video} for info in infos]
        clips, size = _check_keyframes(infos, sampler, annotated, report, decode)
        found, wanted = video['total_frames'], annotated.num_frames.get(name)
        if wanted not in (None, found):
            message = (
                f'{path} has {found} frames, but the annotation is of {wanted}; boxes '
                'may belong to other frames.'
            )
            report.warn('length', place, message)
        shape = annotated.sizes.get(name)
        if size and shape and is_stretched(shape, size):
            message = (
                f'{path} is {size[1]} x {size[0]}, but its boxes are of a picture of '
                f"{shape[1]} x {shape[0]}; correct its 'resolution', which is (height, "
                'width), unless the frames were stretched.'
            )
            report.warn('shape', place, message)
        masks = (mask for info in infos for mask in info.get('gt_masks', ()) if mask)
        for height, width in sorted({tuple(mask['size']) for mask in masks}):
            if size and is_stretched((height, width), size):
                message = (
                    f'{path} is {size[1]} x {size[0]}, but {dataset.mask_file} has masks '
                    f'of {width} x {height} for it; give masks of its frames.'
                )
                report.error('masks', place, message)
        if dataset.use_frames:
            continue
        key_inds = video['video_reader'].key_inds
        for start, end in video['video_reader'].gaps:
            message = (
                f'{path} has no frame from {start:.3f} s to {end:.3f} s; fetch it again '
                'unless it was recorded so.'
            )
            report.warn('gap', place, message)
        used = sum(len(np.unique(clip)) for clip in clips)
        decoded = sum(count_decoded(clip, key_inds) for clip in clips)
        if is_slow_decoded and decoded > SLOW_DECODING * used:
            slow.append((decoded / used, path, place))
    if slow:
        factor, path, place = max(slow)
        message = (
            f'clips of {path} decode {factor:.0f} times the frames that they use, as '
            f'its key frames are far apart (such videos: {len(slow)}); re-encode '
            f'the video ({REENCODE}) or extract its frames.'
        )
        report.warn('slow decoding', place, message)


def _frame_folder(info: dict) -> dict:
    """The number of frames of a sample's video, if there are no gaps between them."""
    folder, tmpl = info['frame_dir'], info['filename_tmpl']
    start = info['start_index']
    numbers = frame_numbers(folder, tmpl, start)
    _, stop = info.get('shot_info') or (0, numbers[-1] - start + 1)
    total = info.get('total_frames') or stop
    gaps = sorted(set(range(start, start + total)) - set(numbers))
    if gaps:
        raise UserError(
            f'{folder} lacks {len(gaps)} of its {total} frames, first '
            f'{tmpl.format(gaps[0])}; extract them again.'
        )
    return dict(total_frames=total)


def _read(info: dict, index: int) -> np.ndarray:
    """A frame; None or any error if it is damaged."""
    if 'video_reader' in info:
        return info['video_reader'].get_batch([index])[0]
    name = info['filename_tmpl'].format(index)
    return mmcv.imread(os.path.join(info['frame_dir'], name))


def _check_keyframes(
    infos: list[dict],
    sampler: SampleKeyframeClip,
    annotated: Annotated,
    report: Report,
    decode: bool,
) -> tuple[list[np.ndarray], tuple[int, int] | None]:
    """Check that clips fit in and keyframes can be read.

    Returns:
        The frames of the clips, and (h, w) of one that was read.
    """
    clips, size = [], None
    faults: dict[str, tuple] = {}  # one for all keyframes of a short video
    for info in sorted(infos, key=lambda info: info['timestamp']):
        place = annotated.videos[info['video_id']]
        place = annotated.keyframes.get(info['img_key'], place)
        try:
            clip = sampler.transform(dict(info))['frame_inds']
        except UserError as error:
            faults.setdefault(str(error), ('clip', place))
            continue
        clips.append(clip)
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
    if len(faults) > 1 and not annotated.keyframes:
        # Without lines, one finding stands for a whole video.
        message, where = next(iter(faults.items()))
        faults = {f'{message[:-1]} ({len(faults)} such keyframes).': where}
    for message, where in faults.items():
        report.error(*where, message)
    return clips, size
