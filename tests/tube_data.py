"""Made-up tubes, and predictions around them, for tests of metrics."""

import itertools
import pickle
import tempfile

import numpy as np

from stmixer_mm.projects.diagnosis.offline import feed, metrics_for

HEIGHT, WIDTH = 100, 200
SCALE = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
LEFT, RIGHT = [0, 0, 49, 99], [100, 0, 149, 99]


def still(first, last, box):
    """A tube (n, 5) that stands still."""
    frames = np.arange(first, last + 1)
    return np.column_stack([frames, np.tile(box, (len(frames), 1))]).astype(float)


def ground_truth(gttubes, labels=('run', 'sit', 'jump'), nframes=40):
    """Content of a pickle of ground truth."""
    return dict(
        labels=list(labels),
        train_videos=[[]],
        test_videos=[list(gttubes)],
        nframes=dict.fromkeys(gttubes, nframes),
        resolution=dict.fromkeys(gttubes, (HEIGHT, WIDTH)),
        gttubes=gttubes,
    )


TWO_VIDEOS = ground_truth(
    {
        'v': {0: [still(1, 20, LEFT), still(5, 30, RIGHT)], 1: [still(1, 20, LEFT)]},
        'w': {0: [still(3, 18, LEFT)]},
    }
)


def build(metric_type, truth, **options):
    """A metric on the content of a pickle."""
    with tempfile.NamedTemporaryFile(suffix='.pkl') as file:
        file.write(pickle.dumps(truth))
        file.flush()
        return metric_type(file.name, **options)


def score(metric, samples):
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def predict(video, frame, *persons, num_labels=3):
    """A sample of persons (box in pixels, {label: score})."""
    scores = np.zeros((len(persons), num_labels + 1))
    for row, (_, actions) in zip(scores, persons, strict=True):
        for label, value in actions.items():
            row[label + 1] = value
    bboxes = np.reshape([box for box, _ in persons], (-1, 4)) / SCALE
    instances = dict(bboxes=bboxes, scores=scores)
    return dict(video_id=video, timestamp=frame, pred_instances=instances)


def clips_of(length, clip_len, step, start=1):
    """Frames (K,) of clips of a video, padded at both of its ends."""
    begins = range(start, length + 1, step)
    return [np.arange(b, b + clip_len).clip(1, length) for b in begins]


def predict_truth(truth):
    """Every box of the ground truth, in every frame."""
    samples, num_labels = [], len(truth['labels'])
    for name, classes in truth['gttubes'].items():
        for frame in range(1, truth['nframes'][name] + 1):
            persons = [
                (row[1:], {label: 0.9})
                for label, tubes in classes.items()
                for row in itertools.chain(*tubes)
                if row[0] == frame
            ]
            samples.append(predict(name, frame, *persons, num_labels=num_labels))
    return samples


def linked(video, *tubes):
    """A sample of tubes (label, score, rows of frame and box in pixels)."""
    return dict(video_id=video, pred_tubes=tubes)


def noisy(seed, num_labels=3):
    """Ground truth and detections around it, of random scores."""
    random = np.random.RandomState(seed)
    gttubes, samples = {}, []
    for name in ('v', 'w', 'x'):
        persons = []
        for label in np.repeat(range(num_labels), 2).tolist():
            first, length = random.randint(1, 15), random.randint(12, 25)
            low = random.randint(0, 40, 2)
            box = np.array([*low, *(low + random.randint(30, 55, 2))])
            steps = np.cumsum(random.randint(-1, 2, (length, 1)), axis=0)
            tube = still(first, first + length - 1, box)
            tube[:, 1:] = (tube[:, 1:] + steps).clip(0, 99)
            persons.append((label, tube))
        gttubes[name] = {label: [] for label in range(num_labels)}
        for label, tube in persons:
            gttubes[name][label].append(tube)
        for frame in range(1, 41):
            detections = []
            for label, tube in persons:
                for row in tube[tube[:, 0] == frame]:
                    box = (row[1:] + random.randint(-4, 5, 4)).clip(0, 99)
                    wrong = random.randint(num_labels)
                    scores = {label: random.rand(), wrong: random.rand()}
                    detections.append((box, scores))
            samples.append(predict(name, frame, *detections, num_labels=num_labels))
    labels = [f'class {number}' for number in range(num_labels)]
    return ground_truth(gttubes, labels=labels), samples


def untidy(seed, parts):
    """As ``noisy``, with boxes in parts of a pixel, some of them twice, scores that are
    often equal, and a label without ground truth."""
    truth, samples = noisy(seed)
    random = np.random.RandomState(seed)
    truth['labels'].append('nobody')
    for classes in truth['gttubes'].values():
        for tube in itertools.chain(*classes.values()):
            tube[:, 1:] += random.randint(0, parts, 4) / parts
    for sample in samples:
        instances = sample['pred_instances']
        shape = instances['bboxes'].shape
        bboxes = instances['bboxes'] + random.randint(0, parts, shape) / parts / SCALE
        scores = np.column_stack([instances['scores'], random.rand(shape[0])]).round(1)
        twice = np.arange(shape[0]).repeat(random.randint(1, 3, shape[0]))
        sample['pred_instances'] = dict(bboxes=bboxes[twice], scores=scores[twice])
    return truth, samples


def evaluate_results(metrics, results):
    """Values of results from a file, by all metrics that take them."""
    values = {}
    for metric in metrics_for(results, metrics):
        feed(metric, results)
        values |= metric.evaluate(len(metric.results))
    return values


def frame_detections(samples, label):
    """[((video, frame), score, box)] of one label, as the metrics count them."""
    return [
        (
            (sample['video_id'], sample['timestamp']),
            float(scores[label + 1]),
            box * SCALE,
        )
        for sample in samples
        for box, scores in zip(*sample['pred_instances'].values(), strict=True)
        if scores[label + 1] > 0.01
    ]


def csv_lines(samples, *, above=0):
    """Detections that score more, as lines of video, time, box, action, score."""
    lines = []
    for sample in samples:
        place = f'{sample["video_id"]},{sample["timestamp"]}'
        for box, scores in zip(*sample['pred_instances'].values(), strict=True):
            corners = ','.join(repr(float(value)) for value in box)
            lines += [
                f'{place},{corners},{action},{float(scores[action])!r}'
                for action in np.flatnonzero(scores[1:] > above) + 1
            ]
    return lines


def ava_lines(truth):
    """The ground truth as an AVA csv, in which each frame is a keyframe."""
    lines = csv_lines(predict_truth(truth))
    return [f'{line.rpartition(",")[0]},0' for line in lines]
