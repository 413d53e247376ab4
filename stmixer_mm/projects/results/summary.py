"""Who did what for how long, from the detections of videos."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from stmixer_mm.errors import UserError
from stmixer_mm.structures import VideoDetections
from stmixer_mm.visualization.timeline import Clock


class Stretch(NamedTuple):
    """Successive keyframes at which a person does an action, in seconds."""

    person: int
    action: str
    start_s: float
    end_s: float
    score: float  # the mean


class PersonAction(NamedTuple):
    """An action of a person in a video, in seconds of the video."""

    video: str
    person: int
    action: str
    first_s: float
    last_s: float
    seconds: float  # of all stretches
    times: int  # number of stretches


class ActionTotal(NamedTuple):
    """An action in all videos."""

    action: str
    persons: int
    seconds: float
    times: int


def load_results(folder: str) -> dict[str, VideoDetections]:
    """The results in a folder, by the names of their files without the suffix.

    Raises:
        UserError: there are none, or they have no ids.
    """
    files = sorted(Path(folder).glob('*.json'))
    if not files:
        raise UserError(
            f'{folder} has no JSON file of detections; name the folder that stmixer '
            'detect wrote.'
        )
    videos = {file.stem: VideoDetections.load(file) for file in files}
    for file, detections in zip(files, videos.values(), strict=True):
        if detections.tubes is None:
            raise UserError(
                f'{file} has no ids of persons; detect without --tracker none.'
            )
    return videos


def list_stretches(detections: VideoDetections) -> Iterator[Stretch]:
    """The stretches of each tube, by action.

    A keyframe stands for the time up to the next one.
    """
    clock = Clock(detections)
    for tube in detections.tubes or ():
        for action in sorted(tube.actions, key=lambda action: action.action):
            start, length = clock.bar(action)
            yield Stretch(tube.id, action.action, start, start + length, action.score)


def summarize(detections: VideoDetections) -> list[PersonAction]:
    """A row for each person and action of a video, persons in the order of their tubes."""
    groups = defaultdict(list)
    for stretch in list_stretches(detections):
        groups[stretch.person, stretch.action].append(stretch)
    return [
        PersonAction(
            video=detections.source,
            person=person,
            action=action,
            first_s=min(stretch.start_s for stretch in stretches),
            last_s=max(stretch.end_s for stretch in stretches),
            seconds=sum(stretch.end_s - stretch.start_s for stretch in stretches),
            times=len(stretches),
        )
        for (person, action), stretches in groups.items()
    ]


def add_up(rows: Iterable[PersonAction]) -> list[ActionTotal]:
    """Totals of each action, the longest first."""
    by_action = defaultdict(list)
    for row in rows:
        by_action[row.action].append(row)
    totals = [
        ActionTotal(
            action=action,
            persons=len(group),
            seconds=sum(row.seconds for row in group),
            times=sum(row.times for row in group),
        )
        for action, group in by_action.items()
    ]
    return sorted(totals, key=lambda total: -total.seconds)


def plot_totals(totals: list[ActionTotal]) -> Figure:
    """A bar for each action, as long as its seconds."""
    figure = Figure(figsize=(8, 1 + 0.35 * len(totals)), layout='constrained')
    axes = figure.add_subplot(xlabel='seconds')
    bars = axes.barh(
        [total.action for total in totals], [total.seconds for total in totals]
    )
    axes.bar_label(bars, [f'{total.times}x' for total in totals], padding=3)
    axes.invert_yaxis()
    axes.spines[['top', 'right']].set_visible(False)
    return figure
