"""Predictions in a dump: what ``tools/test.py --dump`` writes.

A dump is a pickle, and a pickle is a program. This one is run by an unpickler that
knows numbers, text, containers, arrays and tensors, and can call nothing else.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.fileio import dump
from mmengine.logging import print_log

from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.metrics.predictions import read_instances, to_numpy
from stmixer_mm.evaluation.results.sound_boxes import box_message, faulty_boxes
from stmixer_mm.files import ATOMIC_BACKEND
from stmixer_mm.plain_pickle import PlainUnpickler, read_plain_pickle
from stmixer_mm.registry import METRICS

AGAIN = 'dump the results of a model of this package with tools/test.py'


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
        ValueError: a sample lacks what is evaluated, or has numbers that cannot be.
    """

    def __init__(self, file: str, samples: list[dict]) -> None:
        self.file = file
        self.notes: list[str] = []
        self._samples = samples
        for place, sample in self.samples():
            try:
                with blame('it cannot be evaluated', AGAIN):
                    _check_sample(sample)
            except UserError as error:
                raise UserError(f'{place}: {error}') from error

    def samples(
        self, metric: BaseMetric | None = None, *, last: bool = False
    ) -> Iterator[tuple[str, dict]]:
        """Place and sample of each, the same for every metric; ``last`` lets go of each."""
        del metric
        for index, sample in enumerate(self._samples):
            if last:
                self._samples[index] = None
            yield f'{self.file}, sample {index + 1}', sample


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


def _check_sample(sample: Any) -> None:
    video = sample['video_id']
    if not isinstance(video, str):
        raise UserError(f'its video_id is {video!r}, not text; {AGAIN}.')
    bboxes, scores = read_instances(sample)
    is_wrong = ~((scores >= 0) & (scores <= 1))
    if is_wrong.any():
        raise UserError(
            f'the score {scores[is_wrong][0]:g} of {video} is not in [0, 1]; scale all '
            'scores alike.'
        )
    faulty = faulty_boxes(bboxes)
    if len(faulty):
        raise UserError(f'{video}: {box_message(bboxes[faulty[0]])}')


class _DumpUnpickler(PlainUnpickler):
    """Knows what pickled ground truth may ask for, and tensors."""

    def find_class(self, module: str, name: str) -> Any:
        # New functions each time: a pickle may set attributes of what it gets.
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            # as_strided refuses to leave the values of the tensor.
            return lambda flat, offset, size, stride, *_: flat.as_strided(
                size, stride, offset
            )
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return lambda data: _storage(data)
        return super().find_class(module, name)


def _storage(data: Any) -> torch.Tensor:
    """The values of a tensor; torch reads numbers only here."""
    data = io.BytesIO(data)
    storage = torch.load(data, map_location='cpu', weights_only=True)
    return torch.tensor([], dtype=storage.dtype).set_(storage)
