"""Base of the readers of predictions in files."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.evaluator import BaseMetric


class Results:
    """Predictions in a file, as samples for metrics."""

    metric_type = BaseMetric  # metrics that take them
    score_thr: float | None = None  # of a metric that sets none

    def __init__(self, file: str | Path) -> None:
        self.file = str(file)

    def samples(self, metric: BaseMetric) -> Iterator[tuple[str, dict]]:
        """Place in the file and sample of each keyframe or video."""
        raise NotImplementedError
