"""Published linkings against the same in loops, on random data with ties."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from literal_act import box_iou
from tube_data import (
    build,
    csv_lines,
    evaluate_results,
    ground_truth,
    linked,
    noisy,
    predict,
    score,
    still,
    untidy,
)

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import VideoMAPMetric
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.protocols import TUBE_PROTOCOLS
from stmixer_mm.projects import published  # noqa: F401
from stmixer_mm.projects.diagnosis.offline import read_results

BOX, HALF = [10, 10, 29, 29], [10, 10, 19, 29]


def random_video(seed, labels=3):
    """Boxes of persons who move, come and go, twice at times; scores with ties."""
    random = np.random.RandomState(seed)
    rows = []
    for frame in range(1, 41):
        for person in range(3):
            if random.rand() < 0.85 and frame % 20 > 2 * person:
                at = 10.0 + 25 * person + frame * (person - 1) * 0.7
                box = np.array([at, at, at + 30, at + 20]) + random.randint(-2, 3, 4)
                for _ in range(1 + (random.rand() < 0.2)):
                    rows.append((frame, *box, *random.rand(labels).round(1)))
    table = np.array(rows)
    scores = np.column_stack([np.zeros(len(table)), table[:, 5:]])
    return table[:, 0].astype(int), table[:, 1:5], scores


def literal_nms(boxes, scores):
    """nms.m: from the end of an ascending sort."""
    candidates, survivors = np.argsort(scores, kind='stable').tolist(), []
    while candidates:
        best = boxes[candidates[-1]]
        survivors.append(candidates.pop())
        candidates = [i for i in candidates if box_iou(best, boxes[i], 0) <= 0.45]
    return survivors[:10]


def literal_road_paths(frames, bboxes, scores, label, last):
    """incremental_linking.m; a path is a list of (frame, box number)."""
    live, dead = [], []
    for t in range(1, last + 1):
        boxes = [i for i in range(len(frames)) if frames[i] == t]
        boxes = [i for i in boxes if scores[i, label] > 0.001]
        boxes.sort(key=lambda i: -scores[i, label])
        boxes = [boxes[k] for k in literal_nms(bboxes[boxes], scores[boxes, label])]
        covered = set()
        for path in live:
            edges = [
                0
                if i in covered
                or box_iou(bboxes[path['boxes'][-1][1]], bboxes[i], 1) < 0.1
                else scores[i, label]
                for i in boxes
            ]
            if sum(edges) > 0:
                covered.add(boxes[int(np.argmax(edges))])
                path['boxes'].append((t, boxes[int(np.argmax(edges))]))
                path['missed'] = 0
            else:
                path['missed'] += 1
            values = sorted(scores[i, label] for _, i in path['boxes'])
            path['order'] = np.mean(values[max(0, len(values) - 4) :])
        live.sort(key=lambda path: -path['order'])
        dead += [path for path in live if path['missed'] >= 3]
        live = [path for path in live if path['missed'] < 3]
        live += [dict(boxes=[(t, i)], missed=0) for i in boxes if i not in covered]
    return [path['boxes'] for path in live + dead if len(path['boxes']) > 3]


def literal_labels(values, alpha):
    """mydpEM_max.m on values (C, T)."""
    total = np.zeros(len(values))
    choices = []
    for t in range(values.shape[1]):
        best = []
        for i in range(len(values)):
            ways = [total[k] - alpha * (k != i) for k in range(len(values))]
            best.append((max(ways), int(np.argmax(ways))))
        total = np.array([values[i, t] + best[i][0] for i in range(len(values))])
        choices.append([choice for _, choice in best])
    labels = [int(np.argmax(total))]
    for t in range(values.shape[1] - 1, 0, -1):
        labels.insert(0, choices[t][labels[0]])
    return labels


def runs(values, wanted):
    """First and end of each run of a value."""
    end = 0
    for value, repeats in itertools.groupby(values):
        start, end = end, end + len([*repeats])
        if value == wanted:
            yield start, end


def literal_road(frames, bboxes, scores, alpha):
    for label in range(1, scores.shape[1]):
        for path in literal_road_paths(frames, bboxes, scores, label, frames.max()):
            filled = [path[0]]
            for t, i in path[1:]:
                filled += [(s, i) for s in range(filled[-1][0] + 1, t + 1)]
            values = np.array([scores[i, 1:] for _, i in filled]).T + 20
            for start, end in runs(literal_labels(values, alpha), label - 1):
                part = filled[start:end]
                if len(part) - 1 > 8:
                    best = sorted((scores[i, label] for _, i in part), reverse=True)
                    rows = [(t, *bboxes[i]) for t, i in part]
                    yield label, rows, np.mean(best[:40])


def literal_retina(frames, bboxes, scores, rules):
    """gen_agent_paths.py and the tubes of ``trim_tubes`` without trimming."""
    agents, live, dead = scores[:, 1:].max(axis=1), [], []
    for t in sorted(set(frames.tolist())):
        boxes = sorted(np.flatnonzero(frames == t), key=lambda i: -agents[i])
        boxes = [i for i in boxes[: rules.top_k] if agents[i] > 0.025]
        linked, order = set(), []
        for path in live:
            order.append(0)
            if t - path[-1][0] > 4:
                continue
            back = min(5, len(path))
            last_bbox, past_bbox = bboxes[path[-1][1]], bboxes[path[-back][1]]
            a = last_bbox + (last_bbox - past_bbox) / max(1, back - 1)
            edges = []
            for i in boxes:
                b = bboxes[i]
                dx = min(a[2], b[2]) - max(a[0], b[0])
                dy = min(a[3], b[3]) - max(a[1], b[1])
                areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
                iou = dx * dy / (sum(areas) - dx * dy) if dx * dy > 0 else 0
                near = iou >= rules.link_iou and i not in linked
                edges.append(agents[i] if near else 0)
            if sum(edges) > 0.1:
                linked.add(boxes[int(np.argmax(edges))])
                path.append((t, boxes[int(np.argmax(edges))]))
            values = sorted(agents[i] for _, i in path)
            order[-1] = np.mean(values[-5:])
        live = [live[k] for k in np.argsort(order)[::-1]]
        dead += [path for path in live if t - path[-1][0] > 4]
        live = [path for path in live if t - path[-1][0] <= 4]
        live += [[(t, i)] for i in boxes if i not in linked]
    for path in dead + live:
        if len(path) > 5:
            classes = np.array([scores[i, 1:] for _, i in path])
            topn = max(1, classes.shape[1] // 4)
            values = np.sort(classes, axis=0)[::-1][:topn].mean(axis=0)
            rows = [(path[0][0] + k, *bboxes[i]) for k, (_, i) in enumerate(path)]
            for label in sorted(range(len(values)), key=lambda k: -values[k])[:10]:
                if rules.trims:
                    yield from literal_indiv(label, rows, classes, rules.alpha)
                else:
                    yield label + 1, rows, values[label]


def literal_indiv(label, rows, classes, alpha):
    """Of ``trim_tubes``, with ``dpEMmax``."""
    class_scores = classes[:, label]
    padded = [0, 0, *class_scores, 0, 0]
    top = max(sorted(padded[k : k + 5])[2] for k in range(len(class_scores)))
    costs = np.ones((2, len(class_scores) + 1))
    costs[0, 1:], costs[1, 1:] = class_scores / top, 1 - class_scores / top
    choices = []
    for j in range(1, len(class_scores)):
        ways = [[costs[k, j - 1] - alpha * (k != i) for k in (0, 1)] for i in (0, 1)]
        choices.append([int(np.argmax(way)) for way in ways])
        costs[:, j] += [max(way) for way in ways]
    labels = [int(np.argmax(costs[:, len(class_scores) - 1]))]
    for choice in choices[::-1]:
        labels.insert(0, choice[labels[0]])
    for start, end in runs(labels, 0):
        if end - 1 - start >= 5:
            half = max(1, (end - start) // 2)
            best = sorted(class_scores[start:end], reverse=True)[:half]
            yield label + 1, rows[start:end], np.mean(best)


def literal_openmixer(frames, bboxes, scores):
    for label in range(1, scores.shape[1]):
        tubes = []
        for t in sorted(set(frames.tolist())):
            for i in np.flatnonzero((frames == t) & (scores[:, label] > 0)):
                ending = [tube for tube in tubes if tube[-1][0] == t - 5]
                ending[0].append((t, i)) if ending else tubes.append([(t, i)])
        for tube in tubes:
            key_frames = [t for t, _ in tube]
            sides = np.round([bboxes[i] for _, i in tube]).T
            all_frames = range(key_frames[0], key_frames[-1] + 1)
            columns = (np.interp(all_frames, key_frames, side) for side in sides)
            rows = list(zip(all_frames, *columns, strict=True))
            yield label, rows, np.mean([scores[i, label] for _, i in tube])


def as_lists(tubes):
    return [
        (label, np.array(rows).round(6).tolist(), round(float(value), 9))
        for label, rows, value in tubes
    ]


@pytest.mark.parametrize('seed', range(8))
def test_linkings_are_those_of_the_loops(seed):
    video = random_video(seed)
    road = replace(LINKINGS['road'], alpha=[0.2, 0.8, 5][seed % 3])
    expected = as_lists(literal_road(*video, road.alpha))
    assert sorted(as_lists(road.link_video(40, *video))) == sorted(expected)
    for trims in (False, True):
        options = dict(top_k=2 + seed, trims=trims, alpha=0.1 + seed / 9)
        retina = replace(LINKINGS['retina'], **options)
        expected = as_lists(literal_retina(*video, retina))
        assert as_lists(retina.link_video(40, *video)) == expected
        assert len(expected) >= 3
    with pytest.raises(UserError, match="protocol='openmixer'"):
        as_lists(LINKINGS['openmixer'].link_video(40, *video))
    fifths = [values[video[0] % 5 == 2] for values in video]
    openmixer = as_lists(LINKINGS['openmixer'].link_video(40, *fifths))
    assert openmixer == as_lists(literal_openmixer(*fifths))
    assert len(openmixer) > 3


def test_tubelets_are_refused():
    tubelet = dict(bboxes=np.zeros((1, 2, 4)), scores=np.zeros((1, 4)))
    tubelet |= dict(person_scores=np.ones((1, 2)))
    sample = dict(video_id='v', timestamp=1, pred_instances=tubelet, clip_frames=[1, 2])
    truth = ground_truth({'v': {0: [still(1, 40, BOX)]}})
    with pytest.raises(UserError, match='not tubelets'):
        score(build(VideoMAPMetric, truth, linking='road'), [sample])


@pytest.mark.parametrize('step', [1, 5])
def test_frames_that_do_not_count_change_nothing(step):
    truth, samples = noisy(0)
    counted = []
    for name, classes in truth['gttubes'].items():
        for label, tubes in classes.items():
            classes[label] = [tube[8:] for tube in tubes if tube[0, 0] > 2]
        tubes = np.concatenate([tube for tubes in classes.values() for tube in tubes])
        counted += [(name, frame) for frame in np.unique(tubes[:, 0])[::step]]
    counted_samples = [s for s in samples if (s['video_id'], s['timestamp']) in counted]
    assert len(counted) <= len(counted_samples) < len(samples)
    rules = dict(protocol=dict(base='openmixer', every=step))
    rules['linking'] = 'openmixer' if step == 5 else 'act'
    values, again = (
        score(build(VideoMAPMetric, truth, **rules), predictions)
        for predictions in (samples, counted_samples)
    )
    assert values == again
    assert values['video_mAP/overall@0.2'] > 0


@pytest.mark.parametrize('name', sorted({*TUBE_PROTOCOLS} - {'openmixer'}))
def test_the_order_of_lines_changes_nothing(name, write_text):
    """Also where lines repeat a box and scores tie, which the log says."""
    truth, samples = untidy(0, 1)
    lines = csv_lines(samples)
    box = lines[0].rpartition(',')[0]
    lines += [f'{box},0.3', f'{box},0.7']
    values = []
    for seed in range(3):
        metric = build(VideoMAPMetric, truth, protocol=name, linking=name)
        order = np.random.RandomState(seed).permutation(len(lines))
        file = write_text('found.csv', *np.array(lines)[order])
        values.append(evaluate_results([metric], read_results(file)))
    assert values[0] == values[1] == values[2]
    assert values[0]['video_mAP/overall@0.2'] > 0
    assert re.fullmatch(r'; \d{3,4} of \d{3,4} scores tie among boxes .*', metric.ties)


def test_the_order_of_tubes_changes_nothing():
    tubes = [(0, 0.9, still(1, 20, [x, 0, x + 29, 29])) for x in range(0, 40, 10)]
    truth = ground_truth({'v': {0: [still(1, 20, [10, 0, 39, 29])]}})
    for arrangement in (tubes, tubes[::-1]):
        metric = build(VideoMAPMetric, truth)
        values = score(metric, [linked('v', *arrangement)])
        # The second of four.
        assert values['video_mAP/overall@0.75'] == pytest.approx((0 + 1 / 2) / 2)
        assert metric.ties == '; 4 of 4 scores tie among tubes of a class'


@pytest.mark.parametrize('first, box', [(11, BOX), (1, HALF), (20, BOX)], ids=str)
def test_examples_of_yowos_tubes(first, box):
    truth = ground_truth({'v': {0: [still(1, 20, BOX)]}})
    samples = [predict('v', t, (box, {0: 0.9})) for t in range(first, first + 20)]
    options = dict(protocol='yowo', linking='yowo', iou_thrs=0.2)
    values = score(build(VideoMAPMetric, truth, **options), samples)
    assert values['video_mAP/run@0.2'] == pytest.approx(0.99999, abs=1e-9)


def test_paths_are_the_best_of_all():
    random, linking = np.random.RandomState(0), LINKINGS['yowo']
    low = random.randint(0, 9, (4, 3, 2))  # frames, boxes
    high = low + random.randint(5, 20, low.shape)
    bboxes = np.concatenate([low, high], axis=-1).astype(float)
    scores = random.rand(4, 3, 3)
    # Frame 3 has the boxes of frame 2, the earlier of its neighbours.
    inds = np.array([0, 1, 3])
    tubes = replace(linking, tube_nms_iou=None).link_video(
        4, inds.repeat(3) + 1, bboxes[inds].reshape(-1, 4), scores[inds].reshape(-1, 3)
    )
    bboxes[2], scores[2] = bboxes[1], scores[1]

    def worth(path, class_scores):
        total = 0
        for t in range(3):
            (a, b), (i, j) = class_scores[t : t + 2], path[t : t + 2]
            total += box_iou(bboxes[t, i], bboxes[t + 1, j], 0)
            total += a[i] + b[j] + a[i] * b[j] / 2
        return total

    for label in (1, 2):
        paths = [*itertools.product(range(3), repeat=4)]
        class_scores = scores[..., label]
        while paths:
            best = max(paths, key=lambda path: worth(path, class_scores))
            paths = [p for p in paths if not any(np.equal(p, best))]
            column, rows, value = next(tubes)
            assert (column, rows[:, 0].tolist()) == (label, [1, 2, 3, 4])
            np.testing.assert_array_equal(rows[:, 1:], bboxes[range(4), best])
            assert value == pytest.approx(np.mean(class_scores[range(4), best]))
    assert next(tubes, None) is None
