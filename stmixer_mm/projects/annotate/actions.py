"""What persons do, as labels and attributes say it."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from stmixer_mm.errors import UserError
from stmixer_mm.projects.annotate.records import Annotations, Shape, Summary, unique

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


def resolve_actions(
    read: Annotations,
    persons: Collection[str] | None,
    wanted: Collection[str] | None,
    summary: Summary,
) -> list[str]:
    """Give the shapes of a file their actions; remove those of labels without any.

    Args:
        persons: Labels of persons; None: all.
        wanted: Attributes that hold actions; None: all.
        summary: Takes what was left out.

    Returns:
        All actions that the file may hold, in the order of their ids.

    Raises:
        UserError: a track has two boxes in a frame, or no wanted attribute an action.
    """
    shapes = [s for video in read.videos for track in video.tracks for s in track]
    acting = {label for label, _ in read.declared}
    acting |= {shape.label for shape in shapes if shape.given}
    if shapes and not acting and wanted is not None:
        raise UserError(
            f'{read.videos[0].file}: none of the attributes {", ".join(wanted)} holds '
            'an action there; name those that do.'
        )

    def resolve(track: Sequence[Shape]) -> list[Shape]:
        kept: dict[int, Shape] = {}
        for shape in track:
            if acting and shape.label not in acting:
                summary.passed_over[shape.label] += not shape.outside
                continue
            # In COCO files there may be an entry for each action.
            earlier = kept.get(shape.frame, shape)
            if earlier.enclosing_bbox() != shape.enclosing_bbox():
                raise UserError(
                    f'{shape.place}: its track has another box in this frame in '
                    f'{earlier.place}; correct the track id of one.'
                )
            own = _actions_in([shape.given]) if acting else [shape.label]
            actions = tuple(unique([*earlier.actions, *own]))
            kept[shape.frame] = shape._replace(actions=actions)
        return [kept[frame] for frame in sorted(kept)]

    for video in read.videos:
        video.tracks = [kept for track in video.tracks if (kept := resolve(track))]
    summary.num_ignored += read.num_ignored
    labels = [n for n in read.labels if persons is None or n in persons]
    given = [shape.given for shape in shapes]
    if wanted is None:
        holding = {name for _, name in read.declared}
        holding |= {name for one in given for name in one}
        summary.other_attributes += (
            name
            for label, name in read.attributes
            if label in (acting or labels) and name not in holding
        )
    if not acting:
        return labels
    return unique([*_actions_in([read.declared]), *sorted(_actions_in(given))])


def _actions_in(given: Iterable[Mapping[object, Sequence[str]]]) -> list[str]:
    """All actions of some attributes."""
    return [action for one in given for actions in one.values() for action in actions]
