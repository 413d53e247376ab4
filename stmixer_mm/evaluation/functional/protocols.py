"""Evaluators of the data sets as records of their choices.

Those of further papers are in ``projects.published``.

Accidents of a published script that change its figures are named choices too, each with
its source beside the protocol that has it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from stmixer_mm.errors import blame, choose
from stmixer_mm.evaluation.functional.average_precision import AP_MODES, CLASS_AVERAGES
from stmixer_mm.evaluation.functional.linking import PUBLISHED


class BoxRule(NamedTuple):
    """Changes of boxes in pixels before they are compared, in this order."""

    clip: float | None = None  # to the picture, less these pixels right and below
    whole: bool = False  # rounded to whole pixels, halves to even ones
    shift: float = 0  # pixels to the right and down
    grow: float = 0  # pixels that x2 and y2 move further

    def fit(self, bboxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4), clipped and rounded, in pictures of sizes (..., 4), w, h, w, h."""
        if self.clip is not None:
            bboxes = np.clip(bboxes, 0, sizes - self.clip)
        if self.whole:
            bboxes = np.round(bboxes)
        return bboxes

    def move(self, bboxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4), shifted and grown."""
        return bboxes + self.shift + np.array([0, 0, self.grow, self.grow])


class Protocol(NamedTuple):
    """Choices in which the evaluators differ."""

    # 'free': a detection claims the best ground truth that is still free; 'best': the one
    # that it overlaps most, and is wrong if a better detection has claimed that.
    matching: str
    ap: str  # area under precision over recall, a name of ``AP_MODES``
    class_average: str = 'gt'  # classes of the mean, a name of ``CLASS_AVERAGES``
    pixel: float = 0  # what a box measures beyond x2 - x1, in pixels
    frame: float = 0  # what a span measures beyond its last minus its first frame
    # Frames in which detections count, unless excluded: 'all'; those 'annotated' with
    # anything; those with ground truth that is 'evaluated' (keyframes only).
    frames: str = 'all'
    every: int = 1  # each so many-th of the annotated frames of a video
    # Classes that a box counts for: 'all'; its 'best' one; or its best one with the score
    # of each class ('mislabelled').
    classes: str = 'all'
    score_thr: float | None = None  # scores up to it never count
    nms: str | None = None  # suppression in each frame and class, of ``FRAME_NMS``
    detected_boxes: BoxRule = BoxRule()
    true_boxes: BoxRule = BoxRule()
    # w and h that pictures are scaled to before boxes are measured; None: as they are.
    size: tuple[float, float] | None = None
    drop_empty_boxes: bool = False  # detected boxes without area do not count
    last_of_equal: bool = (
        False  # of equal overlaps the last ground truth, not the first
    )
    exceed: bool = False  # an overlap counts above its threshold only
    least_common: int = 1  # frames that tubes share at least
    extra_gts: float = 0  # ground truths of a class in its recall that are not there
    drop_last_frame: bool = False  # true tubes end a frame early
    remade: bool = False  # true tubes are made anew of their boxes, see ``remake``
    skip_silent_frames: bool = False  # ground truth without detections does not count
    # True boxes of a smaller area do not count, nor does what is found in their frame.
    least_area: float = 0


# Scripts of the action tubelet detector (Kalogeiton et al., ICCV 2017), with which
# UCF101-24 and JHMDB are evaluated; also MOC (ECCV 2020) and MultiSports' evaluate.py.
_ACT = Protocol('free', 'act', 'all', pixel=1, frame=1)
# MultiSports' evaluate_multisports.py, and mmaction2's copy of it.
_MULTISPORTS = Protocol('best', 'interpolated')
# Of boxes in the frames of tubes.
FRAME_PROTOCOLS = {
    'act': _ACT,
    'moc': _ACT,
    'multisports': _MULTISPORTS,
}

# Of tubes.
TUBE_PROTOCOLS = {
    'act': _ACT,
    'moc': _ACT,
    'multisports': _MULTISPORTS,
}

# Of keyframes.
KEYFRAME_PROTOCOLS = {
    # get_ava_performance.py of ActivityNet until April 2020, and its copies in PySlowFast
    # and AlphAction, of which the field's tables are.
    'ava': Protocol('best', 'interpolated', drop_empty_boxes=True),
    # The same since 2020-04-24.
    'ava2020': Protocol(
        'best', 'interpolated', frames='annotated', drop_empty_boxes=True
    ),
    # mmaction2's AVAMetric.
    'mmaction2': Protocol('best', 'interpolated', 'detected', frames='evaluated'),
}

CHOICES = dict(
    matching=('free', 'best'),
    ap=AP_MODES,
    class_average=CLASS_AVERAGES,
    frames=('all', 'annotated', 'evaluated'),
    classes=('all', 'best', 'mislabelled'),
)


def parse_protocol(
    protocol: str | Protocol | Mapping, protocols: Mapping[str, Protocol]
) -> Protocol:
    """A protocol, from its name or a dict with what differs from its ``base``.

    >>> parse_protocol(dict(base='multisports', every=5), FRAME_PROTOCOLS).every
    5

    Raises:
        UserError: a name or a choice is unknown.
    """
    if isinstance(protocol, Protocol):
        return protocol
    names = ', '.join(Protocol._fields)
    with blame(f'protocol={protocol!r} cannot be used', f'it may have base, {names}'):
        changes = dict(base=protocol) if isinstance(protocol, str) else dict(protocol)
        base = changes.pop('base', next(iter(protocols)))
        rules = choose('protocol', base, protocols, more=PUBLISHED)
        for name in changes.keys() & {'detected_boxes', 'true_boxes'}:
            changes[name] = BoxRule(**changes[name])
        rules = rules._replace(**changes)
    for name, valid in CHOICES.items():
        choose(name, getattr(rules, name), dict.fromkeys(valid))
    return rules
