"""Who did what for how long, from the detections of videos."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.figure import Figure

from stmixer_mm.structures import VideoDetections
from stmixer_mm.visualization.timeline import Clock


class PersonAction(NamedTuple):
    """What a person of a video did of an action, in seconds of the video."""

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


def summarize(detections: VideoDetections) -> list[PersonAction]:
    """A row for each person and action of a video, persons in the order of their tubes.

    A keyframe stands for the time up to the next one.
    """
    clock = Clock(detections)
    rows = []
    for tube in detections.tubes or ():
        stretches = defaultdict(list)
        for action in tube.actions:
            start, length = clock.bar(action)
            stretches[action.action].append((start, start + length))
        for action, spans in sorted(stretches.items()):
            rows.append(
                PersonAction(
                    video=detections.source,
                    person=tube.id,
                    action=action,
                    first_s=min(start for start, _ in spans),
                    last_s=max(end for _, end in spans),
                    seconds=sum(end - start for start, end in spans),
                    times=len(spans),
                )
            )
    return rows


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
