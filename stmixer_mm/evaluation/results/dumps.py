"""Predictions in a dump: what ``tools/test.py --dump`` writes.

A dump is a pickle, and a pickle is a program. This one is run by an unpickler that
knows numbers, text, containers, arrays and tensors, and can call nothing else.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import DumpResults
from mmengine.fileio import dump
from mmengine.logging import print_log

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.predictions import (
    is_sound_box,
    read_instances,
    to_numpy,
)
from stmixer_mm.files import ATOMIC_BACKEND
from stmixer_mm.plain_pickle import PlainUnpickler, read_plain_pickle
from stmixer_mm.registry import METRICS

AGAIN = 'write it again with tools/test.py --dump and a model of this package'


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


def read_pickle(file: str | Path) -> Any:
    """What a pickle of predictions holds, read without running its code.

    Raises:
        UserError: it is missing or damaged, or asks for more than numbers, text,
            containers, arrays and tensors.
    """
    return read_plain_pickle(
        file, unpickler=_DumpUnpickler, kind='a dump', remedy=AGAIN
    )


class Dump:
    """Samples of a dump.

    Args:
        file: Of :class:`DumpPredictions`, or of mmengine's ``DumpResults``.
        samples: What it holds.

    Raises:
        UserError: these are not the samples of a test run.
    """

    def __init__(self, file: str | Path, samples: Any) -> None:
        self.file = str(file)
        self.notes: list[str] = []
        if not isinstance(samples, list) or not samples:
            raise UserError(f'{file} does not hold the samples of a test run; {AGAIN}.')
        self._samples = samples

    def samples(
        self, metric: DetectionMetric, *, last: bool = False
    ) -> Iterator[tuple[str, dict]]:
        """Place and sample of each, the same for every metric; ``last`` lets go of each."""
        del metric
        for index, sample in enumerate(self._samples):
            if last:
                self._samples[index] = None
            yield f'{self.file}, sample {index + 1}', sample


def check_sample(sample: Any) -> None:
    """Raise an error for what no detector predicts."""
    bboxes, *scores = read_instances(sample)
    if not isinstance(sample['video_id'], str):
        raise TypeError(f'its video_id is {sample["video_id"]!r}, not text')
    bboxes, is_sound = bboxes.reshape(-1, 4), is_sound_box(*bboxes.reshape(-1, 4).T)
    if not is_sound.all():
        box = bboxes[is_sound.argmin()].tolist()
        raise ValueError(f'the box {box} is not upright in [0, 1]')
    for one in scores:
        if one is not None and not ((one >= 0) & (one <= 1)).all():
            raise ValueError(
                f'its scores from {one.min():g} to {one.max():g} are not in [0, 1]'
            )


class _DumpUnpickler(PlainUnpickler):
    """Knows what pickled ground truth may ask for, and tensors."""

    def find_class(self, module: str, name: str) -> Any:
        # New functions each time: a pickle may set attributes of what it gets.
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            # as_strided refuses to leave the values of the tensor; contiguous, to
            # repeat them without end.
            return lambda flat, offset, size, stride, *_: flat.as_strided(
                size, stride, offset
            ).contiguous()
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return lambda data: _storage(data)
        return super().find_class(module, name)


def _storage(data: Any) -> torch.Tensor:
    """The values of a tensor; torch reads numbers only here."""
    data = io.BytesIO(data)
    storage = torch.load(data, map_location='cpu', weights_only=True)
    return torch.tensor([], dtype=storage.dtype).set_(storage)
