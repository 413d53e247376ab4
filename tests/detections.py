"""Keyframes of detections, from columns."""

import numpy as np
import pytest

from stmixer_mm.structures import Action, Keyframe, Person


def keyframe(time_s, frame_index, bboxes, actions, ids=None, scores=None, masks=None):
    """A keyframe; ``actions`` are (name, score) pairs of each person."""
    nothing = [None] * len(bboxes)
    columns = (column or nothing for column in (ids, scores, masks))
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
                bboxes, actions, *columns, strict=True
            )
        ],
    )


def without_nulls(value):
    """A row of Parquet as JSON has it."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [*map(without_nulls, value)] if isinstance(value, list) else value


def assert_same_keyframes(keyframes, expected, *, pixels=1e-3, scores=1e-5):
    """Same frames, times, ids and actions; boxes and scores within tolerances."""
    assert len(keyframes) == len(expected) > 0
    for ours, other in zip(keyframes, expected, strict=True):
        assert (ours.frame_index, ours.ids) == (other.frame_index, other.ids)
        assert ours.time_s == pytest.approx(other.time_s)
        np.testing.assert_allclose(ours.bboxes, other.bboxes, atol=pixels)
        np.testing.assert_allclose(ours.person_scores, other.person_scores, atol=scores)
        for pairs, other_pairs in zip(ours.actions, other.actions, strict=True):
            assert dict(pairs) == pytest.approx(dict(other_pairs), abs=scores)
