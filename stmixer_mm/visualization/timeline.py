"""Actions over time: a row for each person, a bar for each stretch of an action."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from stmixer_mm.errors import blame
from stmixer_mm.files import atomic_path
from stmixer_mm.registry import result_format
from stmixer_mm.structures import Tube, TubeAction, VideoDetections

MOST = 50  # persons, of which each is 60 pixels high
COLOURS = [f'C{number}' for number in range(10)]


@result_format('timeline', suffix='.png')
def plot_timeline(
    detections: VideoDetections,
    path: str | Path | None = None,
    *,
    shortest_s: float = 1.0,
    most: int = MOST,
) -> Figure:
    """Draw the tubes of a video over time, one colour an action.

    Args:
        detections: Of persons with ids.
        path: File to write, if any.
        shortest_s: Persons seen for less time are counted below, and not drawn.
        most: Persons to draw, those seen for the longest time; the others are counted
            below.
    """
    clock = Clock(detections)
    tubes = detections.tubes or ()
    long_tubes = [tube for tube in tubes if clock.length(tube) >= shortest_s]
    num_short = len(tubes) - len(long_tubes)
    longest = {tube.id for tube in sorted(long_tubes, key=clock.length)[-most:]}
    tubes = [tube for tube in long_tubes if tube.id in longest]
    left_out = {
        'more': len(long_tubes) - len(tubes),
        f'seen for less than {shortest_s:g} s': num_short,
    }
    names = sorted({action.action for tube in tubes for action in tube.actions})
    order = detections.classes or names  # so that pictures of a model look alike
    if len(order) > len(COLOURS) or not {*names} <= {*order}:
        order = names
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(order)}

    figure = Figure(figsize=(10, 1.6 + 0.5 * len(tubes)), layout='constrained')
    axes = figure.add_subplot(xlabel='seconds', xlim=(clock.start, clock.end))
    for row, tube in enumerate(tubes):
        _draw_tube(axes, row, tube, clock, colours)
    axes.set_yticks(range(len(tubes)), [f'person {tube.id}' for tube in tubes])
    axes.set_ylim(max(len(tubes), 1) - 0.5, -0.5)
    axes.spines[['top', 'right', 'left']].set_visible(False)
    if notes := ', '.join(
        f'{count} {reason}' for reason, count in left_out.items() if count
    ):
        axes.set_xlabel(f'seconds (not drawn: {notes})')
    if names:
        patches = [Patch(color=colours[name], label=name) for name in names]
        columns = min(len(names), 5)
        figure.legend(
            handles=patches, loc='outside upper center', ncols=columns, frameon=False
        )
    if path is not None:
        remedy = 'give the name of a .png file in a folder that is there'
        with blame(f'The timeline {path} cannot be written', remedy):
            form = Path(path).suffix[1:] or 'png'
            with atomic_path(path) as part:
                figure.savefig(part, format=form, dpi=120)
    return figure


class Clock:
    """Seconds of frame numbers; a keyframe stands for the time up to the next one."""

    def __init__(self, detections: VideoDetections) -> None:
        keyframes = detections.keyframes
        self.times = {frame.frame_index: frame.time_s for frame in keyframes}
        times = np.array([*self.times.values(), *[0.0] * (not self.times)])
        self.step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        self.start, self.end = float(times[0]), float(times[-1]) + self.step
        length = detections.total_frames / detections.fps if detections.fps else 0.0
        if length > times[-1]:  # not that of a part of a stream, which starts late
            self.end = min(self.end, length)

    def bar(self, part: Tube | TubeAction) -> tuple[float, float]:
        """Start and length in seconds."""
        first, last = self.times[part.first_frame], self.times[part.last_frame]
        return first, last - first + self.step

    def length(self, tube: Tube) -> float:
        return self.bar(tube)[1]


def _draw_tube(
    axes: Axes, row: int, tube: Tube, clock: Clock, colours: dict[str, str]
) -> None:
    axes.broken_barh([clock.bar(tube)], (row - 0.4, 0.8), color='0.93')
    names = sorted({action.action for action in tube.actions})
    height = 0.8 / max(len(names), 1)
    for place, name in enumerate(names):
        bars = [clock.bar(action) for action in tube.actions if action.action == name]
        bottom = row - 0.4 + place * height
        axes.broken_barh(bars, (bottom, 0.9 * height), color=colours[name])
