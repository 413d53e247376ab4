"""Actions of persons, from labels and attributes."""

from collections import Counter
from collections.abc import Collection, Iterable

from stmixer_mm.errors import UserError
from stmixer_mm.projects.annotate.records import Annotations, Shape, unique

# Values of a select that mean that nothing was chosen; '__undefined__' is CVAT's.
NO_ACTION = ('', 'false', 'none', 'no action', '__undefined__')
# Attributes that tools write beside the annotators' own, unless CVAT declares a choice.
TOOL_ATTRIBUTES = (
    *('occluded', 'outside', 'keyframe', 'track_id', 'instance_id', 'rotation'),
    *('source', 'truncated', 'difficult', 'group', 'z_order'),
)


def name_actions(attribute: str, value: object) -> list[str] | None:
    """Actions that an attribute of this value names; None if it cannot name any.

    >>> name_actions('wave', True), name_actions('pose', ['sit', 'none'])
    (['wave'], ['sit'])
    """
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | bool) for one in values):
        return None
    texts = [str(one).strip() for one in values]
    return [
        attribute if text.lower() == 'true' else text
        for text in texts
        if text.lower() not in NO_ACTION
    ]


def resolve_actions(
    read: Annotations, wanted: Collection[str] | None, idle: str | None, notes: Counter
) -> list[str]:
    """Give the shapes of a file their actions; remove those of labels without any.

    Args:
        read: The file.
        wanted: Attributes that hold actions; None: all.
        idle: Action of persons that do nothing; None: they have none.
        notes: Takes what was left out.

    Returns:
        All actions that the file may have, in the order of their ids.

    Raises:
        UserError: a track has two boxes in a frame, or no wanted attribute an action.
    """
    tracks = [track for video in read.videos for track in video.tracks]
    found = _find_actions(read, wanted)
    held = {key: actions for key, actions in found.items() if actions is not None}
    if tracks and wanted and not held:
        raise UserError(
            f'{read.videos[0].file}: none of the attributes {", ".join(wanted)} names '
            f'an action there; name those that do.'
        )
    acting = {label for label, _ in held}
    for track in tracks:
        kept: dict[int, Shape] = {}
        for shape in track:
            if not held:
                _add(kept, shape, [shape.label])
            elif shape.label in acting:
                _add(kept, shape, _actions_of(shape, held) or ([idle] if idle else []))
            else:
                what = f'boxes of the label {shape.label!r}, which has no actions, were left out.'
                notes[what] += not shape.outside
        track[:] = [kept[frame] for frame in sorted(kept)]
    for name in sorted({name for _, name in found} - {name for _, name in held}):
        notes[f'attribute was not read as actions: {name} (see --attributes).'] = 1
    named = [action for actions in held.values() for action in actions] or read.labels
    return [*named, *([idle] if idle else ())]


def _find_actions(
    read: Annotations, wanted: Collection[str] | None
) -> dict[tuple[str, str], list[str] | None]:
    """Actions by label and attribute, declared or found; None: it names none."""
    found = dict(read.declared)
    shapes = (
        shape for video in read.videos for track in video.tracks for shape in track
    )
    for shape in shapes:
        for name, value in shape.attributes.items():
            key, named = (shape.label, name), name_actions(name, value)
            if key in read.declared:
                continue
            if named is None or (not wanted and name in TOOL_ATTRIBUTES):
                found.setdefault(key, None)
            else:
                found[key] = sorted({*(found.get(key) or ()), *named})
    if wanted:
        return {key: found[key] if key[1] in wanted else None for key in found}
    return found


def _actions_of(shape: Shape, held: Collection[tuple[str, str]]) -> list[str]:
    return [
        action
        for name, value in shape.attributes.items()
        if (shape.label, name) in held
        for action in name_actions(name, value) or ()
    ]


def _add(track: dict[int, Shape], shape: Shape, actions: Iterable[str]) -> None:
    """Add a shape; in COCO files there may be an entry for each action."""
    earlier = track.get(shape.frame, shape)
    if earlier.bbox != shape.bbox:
        raise UserError(
            f'{shape.place}: its track has another box in this frame in '
            f'{earlier.place}; correct the track id of one.'
        )
    all_actions = tuple(unique([*earlier.actions, *actions]))
    track[shape.frame] = shape._replace(actions=all_actions)
