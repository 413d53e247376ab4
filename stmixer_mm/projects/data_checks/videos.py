"""Check that the clips of a dataset can be read."""

import sys
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from mmengine.utils import track_iter_progress

from stmixer_mm.datasets.frames import frame_numbers
from stmixer_mm.datasets.person_dataset import PersonDataset
from stmixer_mm.datasets.transforms import (
    DecodeFrameFiles,
    DecodeFrames,
    OpenVideo,
    SampleKeyframeClip,
)
from stmixer_mm.errors import UserError
from stmixer_mm.projects.data_checks.reports import Report


def check_videos(
    dataset: PersonDataset,
    num_frames: Mapping[str, int],
    report: Report,
    *,
    decode: bool,
) -> None:
    """Open all videos of a dataset and, with ``decode``, decode their clips.

    Args:
        dataset: Of which all samples are checked.
        num_frames: Of the annotated videos, as far as the annotation tells them.
        report: Takes the findings.
        decode: Whether to read the frames.
    """
    samples = defaultdict(list)
    for index in range(len(dataset)):
        samples[dataset.get_data_info(index)['video_id']].append(index)
    report.num_videos = len(samples)
    for name in track_iter_progress(list(samples), file=sys.stderr):
        infos = [dataset.get_data_info(index) for index in samples[name]]
        try:
            video = _open(infos[0])
        except UserError as error:
            report.error('unreadable', report.place(name), str(error))
            continue
        total_frames, annotated_frames = video['total_frames'], num_frames.get(name)
        if annotated_frames not in (None, total_frames):
            message = (
                f'{infos[0][dataset.path_key]} has {total_frames} frames, but the '
                f'annotation is of {annotated_frames}; boxes may belong to other frames.'
            )
            report.warn('length', report.place(name), message)
        _check_keyframes(dataset, [info | video for info in infos], report, decode)


def _open(info: dict) -> dict:
    """Keys that opening the video of a sample sets; its frames must have no gaps."""
    if 'filename' in info:
        return OpenVideo().transform(dict(filename=info['filename']))
    folder, start = info['frame_dir'], info['start_index']
    numbers = frame_numbers(folder, info['filename_tmpl'], start)
    total = info.get('total_frames') or numbers[-1] - start + 1
    if gaps := sorted(set(range(start, start + total)) - set(numbers)):
        first = info['filename_tmpl'].format(gaps[0])
        raise UserError(
            f'{folder} lacks {len(gaps)} of its {total} frames, first {first}; extract '
            'them again.'
        )
    return dict(total_frames=total)


def _check_keyframes(
    dataset: PersonDataset, infos: list[dict], report: Report, decode: bool
) -> None:
    """Check that clips fit in and can be read, each fault and line once."""
    # Without a sampler of ours only the keyframes are looked at.
    sampler = dataset.find_transform(SampleKeyframeClip) or SampleKeyframeClip(1, 1)
    decoder = DecodeFrameFiles() if dataset.use_frames else DecodeFrames()
    faults_and_places, sound = set(), np.array([], int)  # frames
    for info in sorted(infos, key=lambda info: info['timestamp']):
        kind = 'clip'
        try:
            clip = sampler.transform(dict(info))
            kind = 'unreadable'
            if decode:
                frames = np.setdiff1d(clip['frame_inds'], sound)
                if len(frames):
                    decoder.transform(dict(clip, frame_inds=frames))
                    sound = np.union1d(sound, frames)
        except UserError as error:
            place = report.place(info['img_key'], info['video_id'])
            if faults_and_places.isdisjoint((str(error), place)):
                report.error(kind, place, str(error))
            faults_and_places |= {str(error), place}
