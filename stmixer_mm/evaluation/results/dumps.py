"""Predictions in a dump: what ``tools/test.py --dump`` writes.

A dump is a pickle, and a pickle is a program. This one is run by an unpickler that
knows numbers, text, containers, arrays and tensors, and can call nothing else.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import DumpResults
from mmengine.fileio import dump
from mmengine.logging import print_log

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.predictions import (
    BOX_HIGH,
    BOX_LOW,
    ConfiguredMetric,
    PlacedSample,
    box_message,
    to_numpy,
)
from stmixer_mm.files import ATOMIC_BACKEND
from stmixer_mm.plain_pickle import PlainUnpickler, RefusedError, read_plain_pickle
from stmixer_mm.registry import METRICS


@METRICS.register_module()
class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults``, with arrays for tensors.

    They take a seventh of the time to read, and every reader of pickles knows them. The
    file is whole or not there.
    """

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the samples of a batch."""
        self.results += map(_with_arrays, data_samples)

    def compute_metrics(self, results: list) -> dict:
        """Write the file, whole or not at all."""
        backend = dict(backend=ATOMIC_BACKEND)
        dump(results, self.out_file_path, backend_args=backend)
        print_log(f'The predictions are in {self.out_file_path}.', logger='current')
        return {}


def _with_arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_arrays(item) for item in value]
    return to_numpy(value)


class Dump:
    """Samples of a dump.

    Args:
        file: Its name in messages.
        samples: Of :class:`DumpPredictions`, or of mmengine's ``DumpResults``.

    Raises:
        ValueError: a sample lacks what is evaluated, or has numbers that are not.
    """

    def __init__(self, file: str, samples: list[dict]) -> None:
        self.file = file
        self.notes: list[str] = []
        self._samples = samples
        for placed in self.samples():
            _check_sample(*placed)

    def samples(
        self, configured: ConfiguredMetric | None = None, *, last: bool = False
    ) -> Iterator[PlacedSample]:
        """All samples, the same for every metric; ``last`` lets go of each."""
        del configured
        for index, sample in enumerate(self._samples):
            if last:
                self._samples[index] = None
            yield PlacedSample(f'{self.file}, sample {index + 1}', sample)


def read_dump(file: str | Path) -> list[dict]:
    """Samples of a dump, without running its code.

    Raises:
        OSError: the file is missing, or may not be read.
        ValueError: it is damaged, no dump, or asks for more than numbers,
            text, containers, arrays and tensors.
    """
    samples = read_plain_pickle(
        file,
        unpickler=_DumpUnpickler,
        kind='a dump',
        remedy='write it again with tools/test.py --dump',
    )
    if not isinstance(samples, list) or not samples:
        what = 'an empty list' if samples == [] else f'a {type(samples).__name__}'
        raise UserError(
            f'{file} holds {what} instead of the samples of a test run; write it with '
            'tools/test.py --dump.'
        )
    return samples


def _numbers(values: Any) -> np.ndarray | None:
    try:
        array = np.asarray(to_numpy(values))
    except ValueError:  # lists of several lengths
        return None
    return array if array.dtype.kind in 'biuf' else None


def _check_sample(place: str, sample: Any) -> None:
    """Raise ``ValueError`` unless a sample of a dump can be evaluated."""
    again = 'dump the results of a model of this package with tools/test.py'
    instances = sample.get('pred_instances') if isinstance(sample, Mapping) else None
    if not isinstance(instances, Mapping) or not {'bboxes', 'scores'} <= set(instances):
        raise UserError(f'{place}: it has no boxes and scores; {again}.')
    if not isinstance(sample.get('video_id'), str):
        raise UserError(f'{place}: it has no video_id; {again}.')
    values = {}
    for name in ('bboxes', 'scores'):
        values[name] = _numbers(instances[name])
        if values[name] is None:
            raise UserError(
                f'{place}: {name} of {sample["video_id"]} are no array of numbers; '
                f'{again}.'
            )
        if not np.isfinite(values[name]).all():
            raise UserError(
                f'{place}: {name} of {sample["video_id"]} are not all finite; the '
                'model has diverged, so train it again.'
            )
    bboxes, scores = values['bboxes'], values['scores']
    if bboxes.shape[1:] != (4,) or scores.ndim != 2 or len(bboxes) != len(scores):
        raise UserError(
            f'{place}: bboxes and scores have the shapes {bboxes.shape} and '
            f'{scores.shape} instead of (n, 4) and (n, classes); {again}.'
        )
    far = (bboxes < BOX_LOW) | (bboxes > BOX_HIGH)
    wrong = far.any(axis=1) | (bboxes[:, :2] > bboxes[:, 2:]).any(axis=1)
    if wrong.any():
        message = box_message(*bboxes[wrong][0].tolist())
        raise UserError(f'{place}, {sample["video_id"]}: {message}')
    if ((scores < 0) | (scores > 1)).any():
        raise UserError(
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
        raise RefusedError('it holds a tensor beyond its own values')
    return flat.as_strided(size, stride, offset)


class _DumpUnpickler(PlainUnpickler):
    """Knows what pickled ground truth may ask for, and tensors."""

    def find_class(self, module: str, name: str) -> Any:
        # New functions each time: a pickle may set attributes of what it gets.
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return lambda *arguments: _tensor(*arguments)
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return lambda data: _storage(data)
        return super().find_class(module, name)
