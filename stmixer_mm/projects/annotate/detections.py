"""Detections as files for annotation tools."""

from collections.abc import Sequence
from pathlib import Path

from stmixer_mm.projects.annotate.records import AnnotatedVideo, Shape
from stmixer_mm.projects.annotate.writers import write_coco, write_cvat
from stmixer_mm.structures import Keyframe, VideoDetections, result_format


@result_format('cvat', '.xml')
def write_for_cvat(found: VideoDetections, path: Path) -> None:
    """Write "CVAT for video 1.1"."""
    write_cvat(path, _annotated(found, range(found.total_frames)), _actions(found))


@result_format('coco')
def write_for_coco(found: VideoDetections, path: Path) -> None:
    """Write COCO's JSON with videos."""
    frames = sorted({keyframe.frame_index for keyframe in _within(found)})
    write_coco(path, _annotated(found, frames), _actions(found))


def _actions(found: VideoDetections) -> tuple[str, ...]:
    done = {
        one.action
        for keyframe in found.keyframes
        for person in keyframe.persons
        for one in person.actions
    }
    return found.classes or tuple(sorted(done))


def _within(found: VideoDetections) -> list[Keyframe]:
    """The keyframes, without those predicted for after the video's end."""
    return [
        one
        for one in found.keyframes
        if one.ahead_s is None or one.frame_index < found.total_frames
    ]


def _annotated(found: VideoDetections, frames: Sequence[int]) -> AnnotatedVideo:
    """Persons with ids as tracks, every other person as a track of its own."""
    tracks: dict[object, list[Shape]] = {}
    keyframes = _within(found)
    for number, keyframe in enumerate(keyframes):
        here = set()
        for row, person in enumerate(keyframe.persons):
            shape = Shape(
                frame=keyframe.frame_index,
                bbox=person.bbox,
                actions=tuple(one.action for one in person.actions),
                outside=False,
                place='',
                segmentation=person.mask,
            )
            key = (number, row) if person.id is None else person.id
            tracks.setdefault(key, []).append(shape)
            here.add(key)
        for key, track in tracks.items():
            if key not in here and not track[-1].outside:
                left = dict(frame=keyframe.frame_index, outside=True)
                track.append(track[-1]._replace(**left))
    after = keyframes[-1].frame_index + 1 if keyframes else 0
    for track in tracks.values():
        if not track[-1].outside and after < found.total_frames:
            track.append(track[-1]._replace(frame=after, outside=True))
    return AnnotatedVideo(
        file='',
        names=[Path(found.source).name],
        size=(found.width, found.height),
        fps=found.fps,
        frames=frames,
        tracks=list(tracks.values()),
    )
