"""How published evaluators count, by name."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import AP_MODES
from stmixer_mm.evaluation.functional.matching import Pairs, claim_best, claim_free


class Protocol(NamedTuple):
    """Where the evaluators differ."""

    # What a detection may be right about: (N,) bool of scores (N,), groups (N,), pairs
    # and an IoU threshold.
    claim: Callable[[np.ndarray, np.ndarray, Pairs, float], np.ndarray]
    ap: str  # the area under precision and recall, a name of ``AP_MODES``
    pixel: float  # what a box measures beyond x2 - x1, in pixels
    frame: float  # what a span measures beyond its last minus its first frame

    def average_precision(self, right: np.ndarray, num_gts: int) -> float:
        """AP of detections (N,) by descending score; NaN without ground truth."""
        return AP_MODES[self.ap](right, num_gts) if num_gts else float('nan')


PROTOCOLS = {
    # The scripts of the action tubelet detector (Kalogeiton et al., ICCV 2017), with
    # which UCF101-24 and JHMDB are evaluated; also MOC (ECCV 2020) and MultiSports'
    # evaluate.py.
    'act': Protocol(claim=claim_free, ap='act', pixel=1, frame=1),
    # MultiSports' evaluate_multisports.py, and mmaction2's copy of it.
    'multisports': Protocol(claim=claim_best, ap='interpolated', pixel=0, frame=0),
}


class KeyframeProtocol(NamedTuple):
    """Where the evaluators of keyframes differ."""

    class_average: str  # classes that the mean is over, a name of ``CLASS_AVERAGES``
    # Keyframes in which detections count, unless excluded: 'all'; those that the ground
    # truth 'named', whatever is done there; those with ground truth that is 'evaluated'.
    keyframes: str
    drop_empty_boxes: bool  # detected boxes without area do not count, else are wrong


KEYFRAME_PROTOCOLS = {
    # get_ava_performance.py of ActivityNet until April 2020, and its copies in PySlowFast
    # and AlphAction, of which the field's tables are.
    'ava': KeyframeProtocol(class_average='gt', keyframes='all', drop_empty_boxes=True),
    # The same since 2020-04-24.
    'ava2020': KeyframeProtocol(
        class_average='gt', keyframes='named', drop_empty_boxes=True
    ),
    # mmaction2's AVAMetric.
    'mmaction2': KeyframeProtocol(
        class_average='detected', keyframes='evaluated', drop_empty_boxes=False
    ),
}
