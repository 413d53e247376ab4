"""Predictions in a file: what ``tools/test.py --dump`` writes, or anybody's csv.

A line of the csv is ``video,timestamp,x1,y1,x2,y2,action_id,score`` without a header,
as AVA's evaluator reads it; boxes in [0, 1], for tubes the timestamp is the number of
the frame, from 1, and an action id the number of the label, from 1.

A dump is a pickle, and a pickle is a program. This one is run by an unpickler that
knows numbers, text, containers, arrays and tensors, and can call nothing else.
"""

import io
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults

from stmixer_mm.datasets.ava_csv import TextError, decode_text, keyframe_key, remedy
from stmixer_mm.datasets.tube_annotations import (
    _plain,
    _RefusedError,
    _Unpickler,
)
from stmixer_mm.registry import METRICS

from .frame_map_metric import FrameMAPMetric
from .tube_metrics import TubeFrameMAPMetric, VideoMAPMetric

COLUMNS = 'video,timestamp,x1,y1,x2,y2,action_id,score'
# Detectors' boxes may leave the frame, but by no more than its size.
BOX_LOW, BOX_HIGH = -1, 2
# Of actions that no line of a csv gives to a box.
NO_SCORE = -1.0


class ConfiguredMetric(NamedTuple):
    """A metric and the number of the score column of each action id."""

    metric: BaseMetric
    num_classes: int | None  # None: of a kind that can only evaluate dumps
    columns: Mapping[int, int]
    has_score_thr: bool = False  # The config sets it.


class PlacedSample(NamedTuple):
    """A sample as a metric takes it, and where in a file it comes from."""

    place: str
    sample: dict


class Dump:
    """Samples of a dump.

    Args:
        file: Its name in messages.
        samples: Of mmengine's ``DumpResults``.

    Raises:
        ValueError: a sample lacks what is evaluated, or has numbers that are not.
    """

    def __init__(self, file: str, samples: Sequence[dict]) -> None:
        self.file = file
        self.notes: list[str] = []
        self._samples = samples
        for placed in self.samples():
            _check_sample(*placed)

    def samples(self, configured: ConfiguredMetric | None = None):
        """All samples, the same for every metric."""
        del configured
        for number, sample in enumerate(self._samples, start=1):
            yield PlacedSample(f'{self.file}, sample {number}', sample)


class CsvDetections:
    """Detections of a csv: N lines, one for a box and an action."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.notes: list[str] = []
        self.keyframes: list[tuple[str, int | float]] = []
        self._keyframe_numbers: dict[tuple[str, str], int] = {}
        self._numbers: dict[str, int] = {}
        self._frames = array('l')
        self._lines = array('l')
        self._actions = array('l')
        self._bboxes = array('d')
        self._scores = array('d')

    def add(self, line: int, fields: list[str]) -> str | None:
        """Take the fields of a line, or say what is wrong with them."""
        if len(fields) != 8:
            text = ','.join(fields)
            return (
                f'it has {len(fields)} columns instead of the 8 of {COLUMNS}; '
                f'{remedy(text, "", "write these and no others")}.'
            )
        name = fields[0], fields[1]
        number = self._keyframe_numbers.get(name)
        if number is None:
            number, message = self._new_keyframe(*name)
            if message:
                return message
            self._keyframe_numbers[name] = number
        try:
            x1, y1, x2, y2 = map(float, fields[2:6])
        except ValueError:
            text = ','.join(fields[2:6])
            return (
                f'the box {text!r} is not four numbers; '
                f'{remedy(text, "", "write x1,y1,x2,y2 in [0, 1]")}.'
            )
        if not (BOX_LOW <= x1 <= x2 <= BOX_HIGH and BOX_LOW <= y1 <= y2 <= BOX_HIGH):
            return _box_message(x1, y1, x2, y2)
        try:
            action = int(fields[6])
        except ValueError:
            action = 0
        if action < 1:
            return (
                f'the action id {fields[6]!r} is no whole number from 1 upwards; '
                'use the ids of the label map.'
            )
        try:
            score = float(fields[7])
        except ValueError:
            score = float('nan')
        if not 0 <= score <= 1:
            return (
                f'the score {fields[7]!r} is no number from 0 to 1; remove the line '
                'or scale all scores alike.'
            )
        self._frames.append(number)
        self._lines.append(line)
        self._actions.append(action)
        self._bboxes.extend((x1, y1, x2, y2))
        self._scores.append(score)
        return None

    def __len__(self) -> int:
        return len(self._scores)

    def _new_keyframe(
        self, video: str, text: str
    ) -> tuple[int, None] | tuple[None, str]:
        """Its number, the same for 902, 0902 and 902.0, or what is wrong."""
        if not video:
            return None, 'the video is empty; write its id as in the ground truth.'
        try:
            timestamp = float(text)
        except ValueError:
            timestamp = float('nan')
        if not 0 <= timestamp < float('inf'):
            return None, (
                f'the timestamp {text!r} is not a number from 0 upwards; '
                f'{remedy(text, text, "correct it or remove the line")}.'
            )
        key = keyframe_key(video, timestamp)
        if key not in self._numbers:
            self._numbers[key] = len(self.keyframes)
            whole = timestamp.is_integer()
            self.keyframes.append((video, int(timestamp) if whole else timestamp))
        return self._numbers[key], None

    def samples(self, configured: ConfiguredMetric) -> Iterator[PlacedSample]:
        """A sample for each keyframe; lines of the same box are one person.

        A line that repeats box and action of another is a person of its own.

        Raises:
            ValueError: an action id is not the model's, or none is evaluated.
        """
        metric, num_classes, columns, _ = configured
        if num_classes is None:
            raise ValueError(
                f'{self.file} is a csv, which {type(metric).__name__} cannot evaluate; '
                'use FrameMAPMetric, TubeFrameMAPMetric or VideoMAPMetric as '
                'test_evaluator, or a dump of tools/test.py.'
            )
        actions = np.array(self._actions, dtype=int)
        known = np.array(sorted(columns))
        self._check_actions(actions, known)
        frames, lines = np.array(self._frames, int), np.array(self._lines, int)
        bboxes = np.array(self._bboxes).reshape(-1, 4)
        scores = np.array(self._scores)
        order = np.argsort(frames, kind='stable')
        bounds = np.flatnonzero(np.diff(frames[order])) + 1
        for rows in np.split(order, bounds):
            video, timestamp = self.keyframes[frames[rows[0]]]
            instances = _group_boxes(
                bboxes[rows].tolist(),
                [columns.get(action) for action in actions[rows].tolist()],
                scores[rows].tolist(),
                num_classes,
            )
            frame_key = getattr(metric, 'frame_key', 'timestamp')
            sample = {
                'video_id': video,
                frame_key: timestamp,
                'pred_instances': instances,
            }
            place = f'{self.file}, line {lines[rows[0]]}'
            yield PlacedSample(place, sample)

    def _check_actions(self, actions: np.ndarray, known: np.ndarray) -> None:
        of_model = np.isin(actions, known)
        beyond = np.flatnonzero(actions > known[-1])
        # Of custom_classes, any other id is left out.
        if len(beyond) and known[-1] == len(known):
            raise ValueError(
                f'{self.file}, line {self._lines[beyond[0]]}: the action id '
                f'{actions[beyond[0]]} is unknown, as ids go up to {known[-1]} in the '
                "config's test_evaluator; correct it or the num_classes there."
            )
        if not of_model.any():
            raise ValueError(
                f'{self.file}, line {self._lines[0]}: neither the action id '
                f'{actions[0]} nor that of any other line is evaluated; correct the '
                'ids or custom_classes.'
            )

    def note_repeated(self) -> None:
        """Say how many lines repeat keyframe, box and action of another."""
        bboxes = np.array(self._bboxes).reshape(-1, 4)
        keys = np.column_stack([self._frames, self._actions, bboxes])
        order = np.lexsort((self._lines, *keys.T))
        repeats = order[1:][(keys[order[1:]] == keys[order[:-1]]).all(axis=1)]
        if len(repeats):
            first = min(self._lines[row] for row in repeats)
            self.notes.append(
                f'{self.file}, line {first}: keyframe, box and action of an earlier '
                f'line are repeated ({len(repeats)} such lines); each counts as a '
                "detection of its own, as in AVA's evaluator."
            )


def read_results(file: str | Path) -> Dump | CsvDetections:
    """Read a dump (``.pkl``, ``.pickle``) or else a csv.

    Accepted on purpose in a csv: lines in any order, repeated lines, line ends of any
    system, a byte-order mark, boxes that leave the frame by up to its size or have no
    area, and action ids that are not evaluated.

    Raises:
        FileNotFoundError, ValueError: with file, line and remedy.
    """
    path = Path(file)
    if not path.is_file():
        what = 'is a folder' if path.is_dir() else 'does not exist'
        raise FileNotFoundError(
            f'{file} {what}; give a dump of tools/test.py or a csv of {COLUMNS}.'
        )
    if path.suffix in ('.pkl', '.pickle'):
        return Dump(str(file), read_dump(path))
    return read_csv(path)


def read_csv(file: str | Path) -> CsvDetections:
    """Read a csv; see :func:`read_results`."""
    data = Path(file).read_bytes()
    if data.startswith(b'\x80'):
        raise ValueError(f'{file} is a pickle, not a csv; let its name end in .pkl.')
    try:
        text = decode_text(data)
    except TextError as error:
        raise ValueError(f'{file}, line {error.line}: {error}') from error
    found = CsvDetections(str(file))
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        message = found.add(number, [field.strip() for field in line.split(',')])
        if message:
            raise ValueError(f'{file}, line {number}: {message}')
    if not len(found):
        raise ValueError(
            f'{file}, line 1: the file holds no detection; write a line of {COLUMNS} '
            'for each box and action.'
        )
    found.note_repeated()
    return found


def read_dump(file: str | Path) -> list[dict]:
    """Samples of a file of mmengine's ``DumpResults``, without running its code.

    Raises:
        ValueError: the file is damaged, no dump, or asks for more than numbers,
            text, containers, arrays and tensors.
    """
    try:
        content = _DumpUnpickler(io.BytesIO(Path(file).read_bytes())).load()
        samples = _plain(content)
    except _RefusedError as error:
        raise ValueError(f'{file}: {error}') from error
    # A broken pickle can make the unpickler fail in any way.
    except Exception as error:
        reason = str(error).split('\n')[0].rstrip('.') or type(error).__name__
        raise ValueError(
            f'{file} cannot be read as a dump ({reason}); write it again with '
            'tools/test.py --dump.'
        ) from error
    if not isinstance(samples, list) or not samples:
        what = 'an empty list' if samples == [] else f'a {type(content).__name__}'
        raise ValueError(
            f'{file} holds {what} instead of the samples of a test run; write it with '
            'tools/test.py --dump.'
        )
    return samples


def build_metrics(cfg: Config) -> list[ConfiguredMetric]:
    """The metrics of a config's ``test_evaluator``, dumps left out.

    Raises:
        ValueError: there is none, or what the metrics raise.
    """
    metric_cfgs = cfg.get('test_evaluator') or []
    if not isinstance(metric_cfgs, list | tuple):
        metric_cfgs = [metric_cfgs]
    found = []
    for metric_cfg in metric_cfgs:
        metric = METRICS.build(metric_cfg)
        if isinstance(metric, DumpResults):
            continue
        num_classes, action_ids = None, ()
        if isinstance(metric, FrameMAPMetric):
            num_classes = metric.num_classes
            action_ids = metric_cfg.get('custom_classes') or range(1, num_classes)
        elif isinstance(metric, TubeFrameMAPMetric | VideoMAPMetric):
            num_classes = len(metric.labels) + 1
            action_ids = range(1, num_classes)
        columns = {number: column for column, number in enumerate(action_ids, start=1)}
        has_score_thr = 'score_thr' in metric_cfg
        found.append(ConfiguredMetric(metric, num_classes, columns, has_score_thr))
    if not found:
        raise ValueError(
            f'{cfg.filename} has no metric in test_evaluator; add one, such as '
            "dict(type='FrameMAPMetric', ...)."
        )
    return found


def feed(configured: ConfiguredMetric, results: Dump | CsvDetections) -> list[str]:
    """Give all predictions to a metric; returns notes on what does not count.

    Of a csv all lines count, as in the published evaluators, unless the config sets
    a ``score_thr``: the metric's default is for models, which score every class.

    Raises:
        ValueError: a prediction that the metric refuses, with its place, or none that
            it knows.
    """
    metric = configured.metric
    if isinstance(results, CsvDetections) and not configured.has_score_thr:
        metric.score_thr = NO_SCORE
    total, unknown = 0, []
    for place, sample in results.samples(configured):
        total += 1
        key = sample_key(metric, sample, place)
        if not _is_known(metric, sample, key):
            unknown.append((place, key))
        try:
            metric.process(None, [sample])
        except ValueError as error:
            raise ValueError(f'{place}: {error}') from error
    if not unknown:
        return []
    if len(unknown) == total:
        place, key = unknown[0]
        raise ValueError(
            f'{place}: neither {key} nor any other prediction is in the ground truth '
            f'of {type(metric).__name__}; give the config of the tested dataset and '
            'its names of videos.'
        )
    if isinstance(metric, FrameMAPMetric):
        # The parts of a dataset, each with its own metric: nothing to tell.
        unknown = [item for item in unknown if not metric.is_of_others(item[1])]
    wrong = [item for item in unknown if _counts(metric, item[1])]
    left_out = [item for item in unknown if not _counts(metric, item[1])]
    return [
        f'{group[0][0]}: {group[0][1]} is not in the ground truth of '
        f'{type(metric).__name__} and {effect} ({len(group)} of {total} predicted '
        'keyframes are so).'
        for group, effect in ((wrong, 'counts as wrong'), (left_out, 'does not count'))
        if group
    ]


def sample_key(metric: BaseMetric, sample: dict, place: str) -> str:
    """The keyframe of a sample; ``ValueError`` if it names none."""
    entry = getattr(metric, 'frame_key', 'timestamp')
    frame = sample.get(entry)
    if not isinstance(frame, int | float | np.number):
        raise ValueError(
            f'{place}: it has {entry}={frame!r}, which is no number; dump the results '
            'of a dataset of this package, or correct frame_key in test_evaluator.'
        )
    return keyframe_key(sample['video_id'], frame)


def evaluate_results(
    metrics: Sequence[ConfiguredMetric], results: Dump | CsvDetections
) -> tuple[dict[str, float], list[str]]:
    """Values of all metrics by name, and notes on what was accepted or left out.

    Raises:
        ValueError: as :func:`feed`, or two metrics give a value of the same name.
    """
    values, notes = {}, list(results.notes)
    for configured in metrics:
        notes += feed(configured, results)
        metric = configured.metric
        found = metric.evaluate(len(metric.results))
        double = next((name for name in found if name in values), None)
        if double is not None:
            raise ValueError(
                f'Two metrics of test_evaluator give the value {double!r}; set the '
                'prefix of one.'
            )
        values.update((name, float(value)) for name, value in found.items())
    return values, notes


def _is_known(metric: BaseMetric, sample: dict, key: str) -> bool:
    if isinstance(metric, FrameMAPMetric):
        return key in metric.frame_numbers
    if isinstance(metric, TubeFrameMAPMetric | VideoMAPMetric):
        return sample['video_id'] in metric.video_numbers
    return True


def _counts(metric: BaseMetric, unknown_key: str) -> bool:
    return isinstance(metric, FrameMAPMetric) and metric.counts_unannotated(unknown_key)


def _box_message(*bbox: float) -> str:
    shown = '(' + ', '.join(f'{value:g}' for value in bbox) + ')'
    if not np.isfinite(bbox).all():
        return f'the box {shown} is not finite; remove the line.'
    if all(BOX_LOW <= value <= BOX_HIGH for value in bbox):
        return f'the box {shown} is upside down; write it as x1,y1,x2,y2.'
    return (
        f'the box {shown} lies far outside [0, 1]; divide x by the width, y by the '
        'height.'
    )


def _group_boxes(
    bboxes: list[list[float]],
    columns: list[int | None],
    scores: list[float],
    num_classes: int,
) -> dict[str, torch.Tensor]:
    """``bboxes`` (n, 4) and ``scores`` (n, num_classes) of the lines of a keyframe."""
    persons: dict[tuple, int] = {}
    repeats: Counter = Counter()
    cells = []
    for bbox, column, score in zip(bboxes, columns, scores, strict=True):
        if column is None:
            continue
        key = (*bbox, column)
        person = persons.setdefault((*bbox, repeats[key]), len(persons))
        repeats[key] += 1
        cells.append((person, column, score))
    table = np.full((len(persons), num_classes), NO_SCORE)
    for person, column, score in cells:
        table[person, column] = score
    corners = np.array([key[:4] for key in persons])
    return dict(
        bboxes=torch.from_numpy(corners.reshape(-1, 4)), scores=torch.from_numpy(table)
    )


def _check_sample(place: str, sample: Any) -> None:
    """Raise ``ValueError`` unless a sample of a dump can be evaluated."""
    again = 'dump the results of a model of this package with tools/test.py'
    instances = sample.get('pred_instances') if isinstance(sample, Mapping) else None
    if not isinstance(instances, Mapping) or not {'bboxes', 'scores'} <= set(instances):
        raise ValueError(f'{place}: it has no boxes and scores; {again}.')
    if not isinstance(sample.get('video_id'), str):
        raise ValueError(f'{place}: it has no video_id; {again}.')
    values = {}
    for name in ('bboxes', 'scores'):
        try:
            values[name] = torch.as_tensor(instances[name]).double()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f'{place}: {name} of {sample["video_id"]} are no array of numbers; '
                f'{again}.'
            ) from error
        if not torch.isfinite(values[name]).all():
            raise ValueError(
                f'{place}: {name} of {sample["video_id"]} are not all finite; the '
                'model has diverged, so train it again.'
            )
    bboxes, scores = values['bboxes'], values['scores']
    shapes = tuple(bboxes.shape), tuple(scores.shape)
    if bboxes.shape[1:] != (4,) or scores.ndim != 2 or len(bboxes) != len(scores):
        raise ValueError(
            f'{place}: bboxes and scores have the shapes {shapes[0]} and {shapes[1]} '
            f'instead of (n, 4) and (n, classes); {again}.'
        )
    far = (bboxes < BOX_LOW) | (bboxes > BOX_HIGH)
    wrong = far.any(dim=1) | (bboxes[:, :2] > bboxes[:, 2:]).any(dim=1)
    if wrong.any():
        message = _box_message(*bboxes[wrong][0].tolist())
        raise ValueError(f'{place}, {sample["video_id"]}: {message}')
    if ((scores < 0) | (scores > 1)).any():
        raise ValueError(
            f'{place}: a score of {sample["video_id"]} is not from 0 to 1; scale all '
            'scores alike.'
        )


def _storage(data: Any) -> torch.Tensor:
    """The values of a tensor; torch reads numbers only here."""
    data = io.BytesIO(data)
    storage = torch.load(data, map_location='cpu', weights_only=True)
    return torch.tensor([], dtype=storage.dtype).set_(storage)


def _tensor(
    flat: torch.Tensor, offset: int, size: tuple, stride: tuple, *flags: Any
) -> torch.Tensor:
    del flags
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= len(flat)):
        raise _RefusedError('it holds a tensor beyond its own values.')
    return flat.as_strided(size, stride, offset)


class _DumpUnpickler(_Unpickler):
    """Knows what pickled ground truth may ask for, and tensors."""

    def find_class(self, module: str, name: str) -> Any:
        # New functions each time: a pickle may set attributes of what it gets.
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return lambda *arguments: _tensor(*arguments)
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return lambda data: _storage(data)
        try:
            return super().find_class(module, name)
        except _RefusedError:
            raise _RefusedError(
                f'it asks for {module}.{name}, which no dump of predictions needs; do '
                'not use it unless you trust its origin, and then write it again with '
                'tools/test.py --dump.'
            ) from None
