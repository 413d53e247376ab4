"""Laws of trackers: who is who from keyframe to keyframe."""

from itertools import permutations

import numpy as np
import pytest

from stmixer_mm.apis.tracking import QueryTracker

SIZE = np.array([20.0, 50.0])


def box(x, y=50.0, scale=1.0):
    return np.hstack([(x, y) - scale * SIZE / 2, (x, y) + scale * SIZE / 2])


def test_several_keyframes_at_one_time_and_times_that_start_again():
    tracker, one = QueryTracker(), box(20)[None]
    times = (3.0, 3.0, 3.5, 0.0, 0.5)
    ids = [tracker.extend(time, one, None, None).item() for time in times]
    assert ids == [0, 0, 0, 1, 1]


def scene(rng, persons=3, keyframes=12):
    """Boxes, times and looks of persons who come, go and move at random."""
    place, speed = rng.uniform(0, 150, (persons, 2)), rng.normal(0, 15, (persons, 2))
    looks = rng.normal(size=(persons, 4))
    time = 0.0
    for _ in range(keyframes):
        time += rng.choice([0.3, 0.5, 1.0])
        place = place + speed * 0.5 + rng.normal(0, 2, place.shape)
        seen = rng.permutation(persons)[: rng.choice([0, 2, 3, 3])]
        scales = rng.uniform(0.9, 1.1, len(seen))
        bboxes = [box(*place[i], scale) for i, scale in zip(seen, scales, strict=True)]
        noise = rng.normal(0, 0.3, (len(seen), 4))
        yield time, np.reshape(bboxes, (-1, 4)), looks[seen] + noise


def literal(keyframes):
    """The rule as it is written down, person by person."""

    def giou(a, b):
        def area(x1, y1, x2, y2):
            return max(x2 - x1, 0) * max(y2 - y1, 0)

        both = area(*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:]))
        union = area(*a) + area(*b) - both
        hull = area(*np.minimum(a[:2], b[:2]), *np.maximum(a[2:], b[2:]))
        return both / union - (hull - union) / hull

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    known, ids, fresh = {}, [], 0
    for time, bboxes, looks in keyframes:
        known = {i: one for i, one in known.items() if time - one['time'] <= 2 + 1e-6}
        best, chosen = -np.inf, {}
        # Each known person has one of the boxes or nobody's.
        slots = [*range(len(bboxes)), *[None] * len(known)]
        for given in set(permutations(slots, len(known))):
            total, pairs = 0.0, {}
            for (i, one), new in zip(known.items(), given, strict=True):
                if new is None:
                    continue
                passed = time - one['time']
                expected = one['bbox'] + np.tile(one['speed'] * passed, 2)
                near = [giou(x, bboxes[new]) for x in (one['bbox'], expected)]
                if max(near) < -0.5:
                    break
                pairs[new] = i
                total += 1e3 + sum(near) / 2 + cosine(one['look'], looks[new])
                total += min(one['times'], 5) / 5 - 0.5 * passed
            else:
                if total > best:
                    best, chosen = total, pairs
        now = [None] * len(bboxes)
        for new, i in chosen.items():
            one, now[new] = known[i], i
            moved = (bboxes[new] - one['bbox']).reshape(2, 2).mean(0)
            speed = moved / (time - one['time'])
            mean = speed if one['times'] == 1 else (one['speed'] + speed) / 2
            unit = looks[new] / np.linalg.norm(looks[new])
            look = one['look'] + unit
            known[i] = dict(
                bbox=bboxes[new], time=time, speed=mean, times=one['times'] + 1
            ) | dict(look=look / np.linalg.norm(look))
        for new in sorted(range(len(bboxes)), key=lambda j: tuple(bboxes[j])):
            if now[new] is None:
                now[new], look = fresh, looks[new] / np.linalg.norm(looks[new])
                known[fresh] = dict(
                    bbox=bboxes[new], time=time, speed=np.zeros(2), look=look, times=1
                )
                fresh += 1
        ids.append(now)
    return ids


@pytest.mark.parametrize('seed', range(4))
def test_ids_are_those_of_the_literal_rule_in_any_order_of_the_boxes(seed):
    rng = np.random.RandomState(seed)
    keyframes = [*scene(rng)]
    tracker, shuffled = QueryTracker(), QueryTracker()
    ids = []
    for time, bboxes, looks in keyframes:
        ids.append(tracker.extend(time, bboxes, None, looks).tolist())
        order = rng.permutation(len(bboxes))
        others = shuffled.extend(time, bboxes[order], None, looks[order])
        assert others.tolist() == [ids[-1][one] for one in order]
    assert ids == literal(keyframes)
    assert max(map(max, filter(None, ids))) > 0
