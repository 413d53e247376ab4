"""Keyframes of detections, from columns."""

from stmixer_mm.structures import Action, Keyframe, Person


def keyframe(time_s, frame_index, bboxes, actions, ids=None, scores=None, masks=None):
    """A keyframe; ``actions`` are (name, score) pairs of each person."""
    nothing = [None] * len(bboxes)
    others = (column or nothing for column in (ids, scores, masks))
    return Keyframe(
        time_s=time_s,
        frame_index=frame_index,
        persons=[
            Person(
                id=number,
                bbox=tuple(map(float, bbox)),
                score=score,
                actions=[Action(*pair) for pair in pairs],
                mask=mask,
            )
            for bbox, pairs, number, score, mask in zip(
                bboxes, actions, *others, strict=True
            )
        ],
    )


def without_nulls(value):
    """A row of Parquet as JSON has it."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [*map(without_nulls, value)] if isinstance(value, list) else value
