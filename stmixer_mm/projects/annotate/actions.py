"""Actions of persons, from labels and attributes."""

from collections import Counter
from collections.abc import Collection, Iterable

from stmixer_mm.errors import UserError
from stmixer_mm.projects.annotate.records import Annotations, Shape, is_true, unique

# Values of a select that mean that nothing was chosen; '__undefined__' is CVAT's.
NO_ACTION = ('', 'none', 'no action', '__undefined__')
# Attributes that tools write beside the annotators' own, unless CVAT declares a choice.
TOOL_ATTRIBUTES = (
    *('occluded', 'outside', 'keyframe', 'track_id', 'instance_id', 'rotation'),
    *('source', 'truncated', 'difficult', 'group', 'z_order'),
)


def resolve_actions(
    read: Annotations, wanted: Collection[str] | None, notes: Counter
) -> list[str]:
    """Give the shapes of a file their actions; remove those of labels without any.

    Args:
        read: The file.
        wanted: Attributes that hold actions; None: all.
        notes: Takes what was left out.

    Returns:
        All actions that the file may have, in the order of their ids.

    Raises:
        UserError: a track has two boxes in a frame, or no wanted attribute an action.
    """

    def holds_actions(label: str, name: str) -> bool:
        if wanted is not None and name not in wanted:
            return False
        if (label, name) in read.declared:
            return read.declared[label, name] is not None
        return wanted is not None or name not in TOOL_ATTRIBUTES

    held = {key for key in read.declared if holds_actions(*key)}
    actions = [
        action
        for label, name in read.declared
        if (label, name) in held
        for action in _actions(name, read.declared[label, name] or ['true'])
    ]
    tracks = [track for video in read.videos for track in video.tracks]
    given: dict[int, list[str]] = {id(shape): [] for track in tracks for shape in track}
    seen = set(read.declared)
    for shape in (shape for track in tracks for shape in track):
        for name, value in shape.attributes.items():
            seen.add((shape.label, name))
            texts = _texts(value, is_wanted=wanted is not None)
            if texts is not None and holds_actions(shape.label, name):
                held.add((shape.label, name))
                given[id(shape)] += _actions(name, texts)
    acting = {label for label, _ in held}
    if given and not acting and wanted is not None:
        raise UserError(
            f'{read.videos[0].file}: none of the attributes {", ".join(wanted)} names '
            'an action there; name those that do.'
        )
    for track in tracks:
        kept: dict[int, Shape] = {}
        for shape in track:
            if acting and shape.label not in acting:
                what = f'boxes of the label {shape.label!r} were left out: it has no actions.'
                notes[what] += not shape.outside
            else:
                _add(kept, shape, given[id(shape)] if acting else [shape.label])
        track[:] = [kept[frame] for frame in sorted(kept)]
    if wanted is None:
        for name in sorted({name for _, name in seen} - {name for _, name in held}):
            notes[f'attribute was not read as actions: {name} (see --attributes).'] = 1
    done = sorted(action for some in given.values() for action in some)
    return unique([*actions, *done]) if acting else read.labels


def _add(track: dict[int, Shape], shape: Shape, actions: Iterable[str]) -> None:
    """Add a shape; in COCO files there may be an entry for each action."""
    earlier = track.get(shape.frame, shape)
    if earlier.enclosing_bbox() != shape.enclosing_bbox():
        raise UserError(
            f'{shape.place}: its track has another box in this frame in '
            f'{earlier.place}; correct the track id of one.'
        )
    all_actions = tuple(unique([*earlier.actions, *actions]))
    track[shape.frame] = shape._replace(actions=all_actions)


def _texts(value: object, *, is_wanted: bool) -> list[str] | None:
    """Texts of an attribute that may name actions; None if it is of another type."""
    values = value if isinstance(value, list) else [value]
    texts = [
        str(is_true(one))
        if isinstance(one, bool) or (is_wanted and one in (0, 1))
        else one
        for one in values
    ]
    texts = [one for one in texts if isinstance(one, str)]
    return texts if texts or value == [] else None


def _actions(attribute: str, texts: Iterable[str]) -> list[str]:
    """The actions that texts name, the attribute's own name if one is 'true'."""
    found = []
    for text in map(str.strip, texts):
        if text.lower() in ('true', 'false'):
            found += [attribute] if is_true(text) else []
        elif text.lower() not in NO_ACTION:
            found.append(text)
    return found
