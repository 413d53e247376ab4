"""Actions of persons, from labels and attributes."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from stmixer_mm.errors import ErrorCollector, UserError, nearest
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
    if not all(isinstance(choice, str | bool) for choice in values):
        return None
    texts = [str(choice).strip() for choice in values]
    return [
        attribute if text.lower() == 'true' else text
        for text in texts
        if text.lower() not in NO_ACTION
    ]


def resolve_actions(
    annotations: Annotations,
    attributes: Collection[str] | None,
    idle: str | None,
    notes: Counter,
) -> list[str]:
    """Give the shapes of a file their actions; remove those of labels without any.

    Args:
        annotations: The file.
        attributes: Names of those that hold actions; None: all.
        idle: Action of persons that do nothing; None: they have none.
        notes: Takes what was left out.

    Returns:
        All actions that the file may have, in the order of their ids.

    Raises:
        UserError: a track has two boxes in a frame, an attribute a value that is not
            declared, or none of ``attributes`` an action.
    """
    tracks = annotations.tracks
    candidates = _find_actions(annotations, attributes)
    attribute_actions = {
        key: actions for key, actions in candidates.items() if actions is not None
    }
    if tracks and attributes and not attribute_actions:
        raise UserError(
            f'{annotations.videos[0].file}: none of the attributes '
            f'{", ".join(attributes)} names an action there; name those that do.'
        )
    if not (attribute_actions or attributes):
        _offer_texts(annotations)
    action_labels = {label for label, _ in attribute_actions}
    with ErrorCollector() as errors:
        for track in tracks:
            shapes: dict[int, Shape] = {}
            for shape in track:
                if attribute_actions and shape.label not in action_labels:
                    what = f'boxes of the label {shape.label!r}, which has no actions, were left out.'
                    notes[what] += not shape.outside
                    continue
                with errors.collect():
                    names = [shape.label]
                    if attribute_actions:
                        names = _actions_of(shape, attribute_actions)
                    _add(shapes, shape, names or ([idle] if idle else []))
            track[:] = [shapes[frame] for frame in sorted(shapes)]
    unread = {name for _, name in candidates} - {name for _, name in attribute_actions}
    for name in sorted(unread):
        notes[f'attribute was not read as actions: {name} (see --attributes).'] = 1
    names = [action for actions in attribute_actions.values() for action in actions]
    return [*(names or annotations.labels), *([idle] if idle else ())]


def _find_actions(
    annotations: Annotations, attributes: Collection[str] | None
) -> dict[tuple[str, str], list[str] | None]:
    """Actions by label and attribute, declared or in use; None: it names none."""
    candidates = dict(annotations.declared)
    for shape in chain.from_iterable(annotations.tracks):
        for name, value in shape.attributes.items():
            key, actions = (shape.label, name), name_actions(name, value)
            if annotations.declared.get(key) is not None:
                continue
            # A text may be a note; it is an action if the user says so.
            is_note = key in annotations.declared or name in TOOL_ATTRIBUTES
            if actions is None or (is_note and not attributes):
                candidates.setdefault(key, None)
            else:
                candidates[key] = sorted({*(candidates.get(key) or ()), *actions})
    if attributes:
        return {
            key: candidates[key] if key[1] in attributes else None for key in candidates
        }
    return candidates


def _offer_texts(annotations: Annotations) -> None:
    """Raise ``UserError`` if texts may be the actions of the only label."""
    shapes, texts = [*chain.from_iterable(annotations.tracks)], defaultdict(set)
    for shape in shapes:
        for name, value in shape.attributes.items():
            is_declared = (shape.label, name) in annotations.declared
            if is_declared and any(map(str.isalpha, str(value))):
                texts[name].add(str(value).strip())
    if texts and len({shape.label for shape in shapes}) == 1:
        name = next(iter(texts))
        values = ', '.join(sorted(texts[name]))
        raise UserError(
            f'{shapes[0].place}: no attribute of the label {shapes[0].label!r} has '
            f'choices, but {name} has texts ({values:.100}); pass --attributes {name} if '
            'these are actions, or remove it.'
        )


def _actions_of(
    shape: Shape, held: Mapping[tuple[str, str], Collection[str]]
) -> list[str]:
    """Actions of a shape; ``UserError`` for one that its attribute does not declare."""
    actions = [
        (name, action)
        for name, value in shape.attributes.items()
        if (shape.label, name) in held
        for action in name_actions(name, value) or ()
    ]
    for name, action in () if shape.outside else actions:
        if action not in (declared := held[shape.label, name]):
            raise UserError(
                f'{shape.place}: the value {action!r} of the attribute {name} is not '
                f'declared by its label{nearest(action, declared) or "; correct it."}'
            )
    return [action for _, action in actions]


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
