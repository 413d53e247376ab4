"""Predictions in a dump: what ``tools/test.py --dump`` writes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.fileio import dump
from mmengine.logging import print_log

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.predictions import to_numpy
from stmixer_mm.evaluation.results.rows import Results
from stmixer_mm.files import ATOMIC_BACKEND
from stmixer_mm.registry import METRICS

AGAIN = 'write it again with tools/test.py --dump and a model of this package'


@METRICS.register_module()
class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults``, with arrays for tensors.

    They take less time to read, and a reader of plain pickles knows them.
    The file is written whole or not at all.
    """

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the samples of a batch."""
        self.results += map(_with_arrays, data_samples)

    def compute_metrics(self, results: list) -> dict:
        """Write the file."""
        backend = dict(backend=ATOMIC_BACKEND)
        dump(results, self.out_file_path, protocol=5, backend_args=backend)
        print_log(f'The predictions are in {self.out_file_path}.', logger='current')
        return {}


def _with_arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_arrays(item) for item in value]
    return to_numpy(value)


def dump_results(file: str, content: Any) -> Results:
    """Samples of a dump of :class:`DumpPredictions`, or of mmengine's ``DumpResults``."""
    if not isinstance(content, list) or not content:
        raise UserError(f'{file} has no samples of a test run; {AGAIN}.')

    def samples(metric: BaseMetric) -> Iterator[tuple[str, dict]]:
        for number, sample in enumerate(content, start=1):
            yield f'{file}, sample {number}', sample

    return Results(file, BaseMetric, samples)


def metric_configs(cfg: Config, split: str) -> list[dict]:
    """The metrics of an evaluator: one, some, or mmengine's ``Evaluator`` of either."""
    metrics = cfg.get(f'{split}_evaluator') or []
    if isinstance(metrics, Mapping):
        metrics = metrics.get('metrics', metrics)
    return [metrics] if isinstance(metrics, Mapping) else list(metrics)
