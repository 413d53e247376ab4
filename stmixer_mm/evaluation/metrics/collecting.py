"""Where the ranks hand each other their predictions."""

import os
import tempfile

from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from stmixer_mm.evaluation.functional.average_precision import check_choice


class CollectingMetric(BaseMetric):
    """A metric whose ranks meet in the work dir.

    Without a ``collect_dir`` mmengine's ``BaseMetric`` collects in ``.dist_test`` of
    the current folder, which stays behind. Here it is a folder beside the log of the
    run, which all nodes see, or without a run one for temporary files; it is removed.
    """

    def __init__(
        self,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        # mmengine would only find out when all samples are predicted.
        check_choice('collect_device', collect_device, ('cpu', 'gpu', 'npu'))
        super().__init__(collect_device, prefix, collect_dir)

    def evaluate(self, size: int) -> dict[str, float]:
        """Values over the results of all ranks; see mmengine's ``BaseMetric``."""
        chosen = self.collect_dir
        if chosen is None and self.collect_device == 'cpu' and get_world_size() > 1:
            self.collect_dir = _shared_folder()
        try:
            return super().evaluate(size)
        finally:
            self.collect_dir = chosen


def _shared_folder() -> str:
    """A new folder of the main process, known to all."""
    folders = [None]
    if is_main_process():
        log_file = MMLogger.get_current_instance().log_file
        parent = log_file and os.path.dirname(os.path.abspath(log_file))
        if parent and not os.path.isdir(parent):
            parent = None
        folders = [tempfile.mkdtemp(prefix='.collected_', dir=parent)]
    broadcast_object_list(folders)
    return folders[0]
