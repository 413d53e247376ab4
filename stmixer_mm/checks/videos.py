"""Whether the videos of a dataset can be read where its keyframes are."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable

import mmcv
import numpy as np

from stmixer_mm.checks.annotations import Annotated
from stmixer_mm.checks.reports import Place, SplitReport
from stmixer_mm.datasets.frames import (
    count_decoded,
    describe_folder,
    find_source,
    frame_numbers,
    is_stretched,
    open_video,
)
from stmixer_mm.datasets.person_dataset import PersonDataset
from stmixer_mm.datasets.transforms import OpenVideo, SampleKeyframeClip
from stmixer_mm.errors import UserError

SLOW_DECODING = 8  # frames decoded for one that a clip uses
IN_ORDER = 600  # frames that are at most decoded to check where jumps end
REENCODE = 'ffmpeg -i IN -g 4 -tune fastdecode -an OUT.mp4'

Progress = Callable[[Iterable], Iterable]


def find_videos(
    dataset: PersonDataset, places: dict[str, Place], report: SplitReport
) -> None:
    """Note where each video is, or that it is missing."""
    folder = dataset.data_prefix['img']
    for name, (file, line) in places.items():
        path = find_source(folder, name, use_frames=dataset.use_frames)
        report.videos[name] = path or os.path.join(folder, name)
        report.first_lines[name] = line
        if path is None:
            what = 'frame folder' if dataset.use_frames else 'video'
            message = (
                f'the {what} of {name!r} is missing in {describe_folder(folder)}; put '
                'it there, or correct data_prefix or the name.'
            )
            report.error('missing', (file, line), message)


def check_videos(
    dataset: PersonDataset,
    annotated: Annotated,
    report: SplitReport,
    *,
    decode: bool,
    progress: Progress,
) -> None:
    """Open all videos of a dataset, and decode their keyframes."""
    samples = defaultdict(list)
    for index in range(len(dataset)):
        samples[dataset.get_data_info(index)['video_id']].append(index)
    slow = []
    for name in progress(list(samples)):
        infos = [dataset.get_data_info(index) for index in samples[name]]
        place = annotated.videos[name]
        try:
            source = _Frames(infos[0]) if dataset.use_frames else _Video(infos[0])
        except UserError as error:
            report.error('unreadable', place, str(error))
            continue
        sampler = _transform(dataset, SampleKeyframeClip)
        clips = _check_keyframes(source, infos, sampler, annotated, report, decode)
        _check_size(source, name, annotated, report)
        if isinstance(source, _Video):
            if decode:
                _check_jumps(source, place, report)
            opener = _transform(dataset, OpenVideo)
            if clips and sampler and not (opener and opener.keep_frames):
                used = sum(len(np.unique(clip)) for clip in clips)
                decoded = sum(count_decoded(clip, source.key_inds) for clip in clips)
                if decoded > SLOW_DECODING * used:
                    slow.append((decoded / used, source.path, place))
    if slow:
        factor, path, place = max(slow)
        number = f' ({len(slow)} such videos)' if len(slow) > 1 else ''
        message = (
            f'clips of {path} decode {factor:.0f} times the frames that they use, as '
            f'its key frames are far apart{number}; re-encode the video ({REENCODE}) or '
            'extract its frames.'
        )
        report.warn('slow decoding', place, message)


def _transform(dataset: PersonDataset, of_type: type) -> object | None:
    transforms = dataset.pipeline.transforms
    return next((one for one in transforms if isinstance(one, of_type)), None)


class _Video:
    """A video file; frames count from 0."""

    size: tuple[int, int] | None = None  # (h, w) of the last frame read

    def __init__(self, info: dict) -> None:
        self.path = info['filename']
        self.reader = open_video(self.path)
        self.key_inds = self.reader.get_key_indices()
        self.settings = dict(
            video_reader=self.reader,
            total_frames=len(self.reader),
            fps=self.reader.get_avg_fps(),
        )

    def reads(self, index: int) -> bool:
        try:
            self.reader.seek_accurate(index)
            self.size = self.reader.next().shape[:2]
        except Exception:  # DECORDError is a plain Exception
            return False
        return True

    def jumps_to(self, index: int) -> bool:
        """Whether a jump to a frame ends at the one that playing up to it shows."""
        jumped = open_video(self.path).get_batch([index]).asnumpy()[0]
        player = open_video(self.path)
        for _ in range(index):
            player.next()
        return np.array_equal(jumped, player.next().asnumpy())


class _Frames:
    """A folder of extracted frames; frames count as their names do."""

    size: tuple[int, int] | None = None  # (h, w) of the last frame read

    def __init__(self, info: dict) -> None:
        self.path, self.tmpl = info['frame_dir'], info['filename_tmpl']
        start = info['start_index']
        numbers = frame_numbers(self.path, self.tmpl, start)
        _, stop = info.get('shot_info') or (0, numbers[-1] - start + 1)
        total = info.get('total_frames') or stop
        gaps = sorted(set(range(start, start + total)) - set(numbers))
        if gaps:
            raise UserError(
                f'{self.path} lacks {len(gaps)} of its {total} frames, first '
                f'{self.tmpl.format(gaps[0])}; extract them again.'
            )
        self.settings = dict(total_frames=total)

    def reads(self, index: int) -> bool:
        try:
            path = os.path.join(self.path, self.tmpl.format(index))
            self.size = mmcv.imread(path).shape[:2]
        except Exception:  # cv2.error of an empty file, None for what is not a picture
            return False
        return True


def _check_keyframes(
    source: _Video | _Frames,
    infos: list[dict],
    sampler: SampleKeyframeClip | None,
    annotated: Annotated,
    report: SplitReport,
    decode: bool,
) -> list[np.ndarray]:
    """Whether clips fit in and keyframes can be read; returns the frames of clips."""
    sampler = sampler or SampleKeyframeClip(clip_len=1, frame_interval=1)
    sampler.jitter = False
    clips, faults = [], []
    for info in sorted(infos, key=lambda info: info['timestamp']):
        place = annotated.videos[info['video_id']]
        place = annotated.keyframes.get(info['img_key'], place)
        try:
            clip = sampler.transform({**info, **source.settings})['frame_inds']
        except UserError as error:
            faults.append(('clip', place, str(error)))
            continue
        clips.append(clip)
        keyframe = int(clip[len(clip) // 2])
        if decode and not source.reads(keyframe):
            message = (
                f'frame {keyframe} of {source.path}, timestamp {info["timestamp"]:g}, is '
                'missing or damaged; fetch, extract or encode the video again.'
            )
            faults.append(('unreadable', place, message))
    if len(faults) > 1 and not annotated.keyframes:
        # Without lines: one finding for all of a video.
        *first, message = faults[0]
        faults = [(*first, f'{message[:-1]} ({len(faults)} such keyframes).')]
    reported = set()
    for *where, message in faults:
        if message not in reported:  # one for all keyframes of a short video
            report.error(*where, message)
            reported.add(message)
    return clips


def _check_size(
    source: _Video | _Frames, name: str, annotated: Annotated, report: SplitReport
) -> None:
    """Whether frames are as many and of the shape, if not the size, as annotated."""
    found, wanted = source.settings['total_frames'], annotated.num_frames.get(name)
    if wanted not in (None, found):
        message = (
            f'{source.path} has {found} frames, but the annotation is of {wanted}; '
            'boxes may belong to other frames.'
        )
        report.warn('length', annotated.videos[name], message)
    size = annotated.sizes.get(name)
    if size and source.size and is_stretched(size, source.size):
        (height, width), (real_height, real_width) = size, source.size
        message = (
            f'{source.path} is {real_width} x {real_height}, but its boxes are of a '
            f"picture of {width} x {height}; correct its 'resolution', which is "
            '(height, width), unless the frames were stretched.'
        )
        report.warn('shape', annotated.videos[name], message)


def _check_jumps(video: _Video, place: Place, report: SplitReport) -> None:
    """Whether the index leads to the right frames: not so in many a cut video."""
    key = next(iter(video.key_inds[1:]), None)
    if key is None or key > IN_ORDER:
        return
    try:
        is_right = video.jumps_to(key)
    except Exception:  # DECORDError: damaged, which matters in keyframes only
        return
    if not is_right:
        message = (
            f'a jump to frame {key} of {video.path} ends at another frame, so that '
            f'clips would show the wrong moment; re-encode the video ({REENCODE}).'
        )
        report.error('jumps', place, message)
