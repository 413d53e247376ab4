"""Laws of trackers: who is who from keyframe to keyframe."""

from itertools import permutations

import numpy as np
import pytest

from stmixer_mm.apis.tracking import QueryTracker

SIZE = np.array([20.0, 50.0])


def box(x, y=50.0, scale=1.0):
    return np.hstack([(x, y) - scale * SIZE / 2, (x, y) + scale * SIZE / 2])


def test_several_keyframes_at_one_time_and_times_that_start_again():
    tracker, bboxes = QueryTracker(), box(20)[None]
    times = (3.0, 3.0, 3.5, 0.0, 0.5)
    ids = [tracker.extend(time, bboxes, None, None).item() for time in times]
    assert ids == [0, 0, 0, 1, 1]


def scene(rng, persons=3, keyframes=12):
    """Times, boxes and embeddings of persons who come, go and move at random."""
    place, speed = rng.uniform(0, 150, (persons, 2)), rng.normal(0, 15, (persons, 2))
    embeddings = rng.normal(size=(persons, 4))
    time = 0.0
    for _ in range(keyframes):
        time += rng.choice([0.3, 0.5, 1.0])
        place = place + speed * 0.5 + rng.normal(0, 2, place.shape)
        visible = rng.permutation(persons)[: rng.choice([0, 2, 3, 3])]
        bboxes = [box(*place[i], rng.uniform(0.9, 1.1)) for i in visible]
        noise = rng.normal(0, 0.3, (len(visible), 4))
        yield time, np.reshape(bboxes, (-1, 4)), embeddings[visible] + noise


def literal(keyframes):
    """The rule as it is written down, person by person."""

    def giou(a, b):
        def area(x1, y1, x2, y2):
            return max(x2 - x1, 0) * max(y2 - y1, 0)

        intersection = area(*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:]))
        union = area(*a) + area(*b) - intersection
        hull = area(*np.minimum(a[:2], b[:2]), *np.maximum(a[2:], b[2:]))
        return intersection / union - (hull - union) / hull

    def unit(vector):
        return vector / np.linalg.norm(vector)

    tracks, ids, next_id = {}, [], 0
    for time, bboxes, embeddings in keyframes:
        tracks = {i: t for i, t in tracks.items() if time - t['time'] <= 2 + 1e-6}
        best, chosen = -np.inf, {}
        # Each track has one of the boxes or none.
        slots = [*range(len(bboxes)), *[None] * len(tracks)]
        for assignment in set(permutations(slots, len(tracks))):
            total, pairs = 0.0, {}
            for (i, track), row in zip(tracks.items(), assignment, strict=True):
                if row is None:
                    continue
                passed = time - track['time']
                expected = track['bbox'] + np.tile(track['speed'] * passed, 2)
                near = [giou(x, bboxes[row]) for x in (track['bbox'], expected)]
                if max(near) < -0.5:
                    break
                pairs[row] = i
                total += 1e3 + sum(near) / 2
                total += track['embedding'] @ unit(embeddings[row])
                total += min(track['times'], 5) / 5 - 0.5 * passed
            else:
                if total > best:
                    best, chosen = total, pairs
        row_ids = [None] * len(bboxes)
        for row, i in chosen.items():
            track, row_ids[row] = tracks[i], i
            shift = (bboxes[row] - track['bbox']).reshape(2, 2).mean(0)
            speed = shift / (time - track['time'])
            mean = speed if track['times'] == 1 else (track['speed'] + speed) / 2
            embedding = unit(track['embedding'] + unit(embeddings[row]))
            track.update(bbox=bboxes[row], time=time, speed=mean, embedding=embedding)
            track['times'] += 1
        for row in sorted(range(len(bboxes)), key=lambda j: tuple(bboxes[j])):
            if row_ids[row] is None:
                row_ids[row], next_id = next_id, next_id + 1
                motion = dict(bbox=bboxes[row], time=time, speed=np.zeros(2), times=1)
                tracks[row_ids[row]] = dict(motion, embedding=unit(embeddings[row]))
        ids.append(row_ids)
    return ids


@pytest.mark.parametrize('seed', range(4))
def test_ids_are_those_of_the_literal_rule_in_any_order_of_the_boxes(seed):
    rng = np.random.RandomState(seed)
    tracker, shuffled = QueryTracker(), QueryTracker()
    keyframes, ids = [*scene(rng)], []
    for time, bboxes, embeddings in keyframes:
        ids.append(tracker.extend(time, bboxes, None, embeddings).tolist())
        order = rng.permutation(len(bboxes))
        shuffled_ids = shuffled.extend(time, bboxes[order], None, embeddings[order])
        assert shuffled_ids.tolist() == [ids[-1][row] for row in order]
    assert ids == literal(keyframes)
    assert max(map(max, filter(None, ids))) > 0
