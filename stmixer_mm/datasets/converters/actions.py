"""What persons do, as labels and attributes say it."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from stmixer_mm.datasets.converters.records import Annotations, Shape, unique
from stmixer_mm.errors import UserError

# Values of a select that mean that nothing was chosen; '__undefined__' is CVAT's.
NO_ACTION = ('', 'none', 'no action', '__undefined__')
# What tools write beside the annotators' own attributes, unless CVAT declares a choice.
TOOL_ATTRIBUTES = (
    *('occluded', 'outside', 'keyframe', 'track_id', 'instance_id', 'rotation'),
    *('source', 'truncated', 'difficult', 'group', 'z_order'),
)


def is_true(value: object) -> bool:
    return str(value).strip().lower() in ('1', 'true')


def action_of(attribute: str, value: str) -> str | None:
    """The action that an attribute's text names, the attribute's own if it is 'true'."""
    value = value.strip()
    if value.lower() in ('true', 'false'):
        return attribute if is_true(value) else None
    return None if value.lower() in NO_ACTION else value


class Actions(NamedTuple):
    """What the labels and attributes of a file mean."""

    names: list[str]  # all that it may hold, in the order of their ids
    by_label: bool  # True: no attribute holds any, so labels are actions
    passed_over: Counter  # boxes by label, of labels without actions
    other_attributes: list[str]  # of persons, without actions


def resolve_actions(read: Annotations, persons: Collection[str] | None) -> Actions:
    """Give the shapes of a file their actions; remove those of labels without any."""
    shapes = [s for video in read.videos for track in video.tracks for s in track]
    acting = {*read.declared, *(shape.label for shape in shapes if shape.given)}
    passed_over: Counter = Counter()

    def resolve(track: Sequence[Shape]) -> list[Shape]:
        kept: dict[int, Shape] = {}
        for shape in track:
            if acting and shape.label not in acting:
                passed_over[shape.label] += not shape.outside
                continue
            # In COCO files there may be an entry for each action.
            earlier = kept.get(shape.frame, shape)
            if earlier.enclosing_bbox() != shape.enclosing_bbox():
                raise UserError(
                    f'{shape.place}: its track has another box in this frame in '
                    f'{earlier.place}; correct the track id of one.'
                )
            given = [action for one in shape.given.values() for action in one]
            actions = unique([*earlier.actions, *(given if acting else [shape.label])])
            kept[shape.frame] = shape._replace(actions=tuple(actions))
        return [kept[frame] for frame in sorted(kept)]

    for video in read.videos:
        video.tracks = [kept for track in video.tracks if (kept := resolve(track))]
    labels = [n for n in read.labels if persons is None or n in persons]
    declared = [
        action
        for attributes in read.declared.values()
        for actions in attributes.values()
        for action in actions
    ]
    seen = {
        a for v in read.videos for track in v.tracks for s in track for a in s.actions
    }
    holding = {name for attributes in read.declared.values() for name in attributes}
    holding |= {name for shape in shapes for name in shape.given}
    return Actions(
        names=unique([*(declared if acting else labels), *sorted(seen)]),
        by_label=not acting,
        passed_over=passed_over,
        other_attributes=unique(
            name
            for label, name in read.attributes
            if label in (acting or labels) and name not in holding
        ),
    )
