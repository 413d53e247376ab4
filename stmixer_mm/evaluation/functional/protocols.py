"""Published evaluators as records of their choices.

Accidents of a published script that change its figures are named choices too, each with
its source beside the protocol that has it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from stmixer_mm.errors import blame, choose
from stmixer_mm.evaluation.functional.average_precision import AP_MODES, CLASS_AVERAGES


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
    found_boxes: BoxRule = BoxRule()
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
# pascalvoc.py of YOWO and YOWOv2, whose list files lack some frames: drop_last_frame.
# Files that YOWO wrote are mislabelled: each class of a box has the label of the best.
_YOWO = Protocol('best', 'interpolated', pixel=1, frames='annotated')
# YOWOFormer and YOWOv3: truth is only counted in frames with a detection.
_YOWOFORMER = Protocol(
    'best', 'yolo', frames='annotated', last_of_equal=True, skip_silent_frames=True
)

# Of boxes in the frames of tubes.
FRAME_PROTOCOLS = {
    'act': _ACT,
    'moc': _ACT,
    'multisports': _MULTISPORTS,
    # test-ucf24.py of ROAD's Python port; its truth lies a pixel right and below, as a
    # subtraction is overwritten.
    'road_python': Protocol(
        'free',
        'interpolated',
        'all',
        found_boxes=BoxRule(clip=0),
        true_boxes=BoxRule(clip=1, shift=1),
    ),
    # frameAp.m of ROAD: detections are a pixel wider than the truth.
    'road_matlab': Protocol(
        'free',
        'interpolated',
        'all',
        score_thr=0.01,
        nms='road_matlab',
        found_boxes=BoxRule(clip=1, grow=1),
    ),
    # evaluate_frames of 3D-RetinaNet; its truth is a pixel narrower than annotated.
    'retina': Protocol('free', 'act', 'all', true_boxes=BoxRule(grow=-1)),
    'yowo': _YOWO._replace(found_boxes=BoxRule(whole=True)),
    'yowov2': _YOWO._replace(found_boxes=BoxRule(clip=0, whole=True)),
    'yowov3': _YOWOFORMER,
    'yowoformer': _YOWOFORMER,
    # TubeR's evaluation of JHMDB.
    'tuber': Protocol(
        'best', 'interpolated', frames='annotated', classes='best', least_area=10
    ),
    'openmixer': Protocol('best', 'interpolated', frames='annotated', every=5),
}

_YOWO_TUBES = Protocol(
    'free',
    'interpolated',
    'all',
    pixel=1,
    frame=1,
    found_boxes=BoxRule(clip=0),
    least_common=2,
    extra_gts=1e-5,
)

# Of tubes.
TUBE_PROTOCOLS = {
    'act': _ACT,
    'moc': _ACT,
    'multisports': _MULTISPORTS,
    # Boxes of each fifth annotated frame are linked, and compared with all of the truth.
    'openmixer': _MULTISPORTS._replace(remade=True, frames='annotated', every=5),
    # ROAD's MATLAB code, which adds 1 to detections that count from 1 already.
    'road': Protocol(
        'free',
        'interpolated',
        'all',
        frame=1,
        score_thr=0.001,
        found_boxes=BoxRule(clip=1, shift=1, grow=1),
        exceed=True,
        least_common=2,
    ),
    # evaluate_tubes of 3D-RetinaNet, on the same truth; the scores of all classes count.
    'retina': Protocol(
        'free',
        'act',
        'all',
        pixel=1,
        frame=1,
        score_thr=-1,
        true_boxes=BoxRule(grow=-1),
        size=(682, 512),
    ),
    'yowo': _YOWO_TUBES,
    'yowov2': _YOWO_TUBES,
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

# Whose code scores by them.
USERS = dict(
    act='ACT, MultiSports (evaluate.py)',
    moc='MOC',
    multisports='MultiSports, mmaction2',
    road_python='ROAD, in Python',
    road_matlab='ROAD, in MATLAB',
    road='ROAD, in MATLAB',
    retina='3D-RetinaNet',
    yowo='YOWO',
    yowov2='YOWOv2',
    yowov3='YOWOv3',
    yowoformer='YOWOFormer',
    tuber='TubeR',
    openmixer='OpenMixer',
    ava='PySlowFast, AlphAction',
    ava2020='ActivityNet',
    mmaction2='mmaction2',
)

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

    >>> parse_protocol(dict(base='yowo', drop_last_frame=True), FRAME_PROTOCOLS).pixel
    1

    Raises:
        UserError: a name or a choice is unknown.
    """
    if isinstance(protocol, Protocol):
        return protocol
    names = ', '.join(Protocol._fields)
    with blame(f'protocol={protocol!r} cannot be used', f'it may have base, {names}'):
        changes = dict(base=protocol) if isinstance(protocol, str) else dict(protocol)
        base = changes.pop('base', next(iter(protocols)))
        rules = choose('protocol', base, protocols)
        for name in changes.keys() & {'found_boxes', 'true_boxes'}:
            changes[name] = BoxRule(**changes[name])
        rules = rules._replace(**changes)
    for name, valid in CHOICES.items():
        choose(name, getattr(rules, name), dict.fromkeys(valid))
    return rules
