"""Published evaluators as records of their choices."""

from typing import NamedTuple


class Protocol(NamedTuple):
    """Choices in which the evaluators differ."""

    # 'free': a detection claims the best ground truth that is still free; 'best': the one
    # that it overlaps most, and is wrong if a better detection has claimed that.
    matching: str
    ap: str  # area under precision over recall, a name of ``AP_MODES``
    class_average: str = 'gt'  # classes of the mean, a name of ``CLASS_AVERAGES``
    pixel: float = 0  # what a box measures beyond x2 - x1, in pixels
    frame: float = 0  # what a span measures beyond its last minus its first frame
    # Keyframes in which detections count, unless excluded: 'all'; those that the ground
    # truth 'named', whatever is done there; those with ground truth that is 'evaluated'.
    keyframes: str = 'all'
    drop_empty_boxes: bool = False  # detected boxes without area do not count


# Of tubes, and of their boxes in frames.
PROTOCOLS = {
    # The scripts of the action tubelet detector (Kalogeiton et al., ICCV 2017), with
    # which UCF101-24 and JHMDB are evaluated; also MOC (ECCV 2020) and MultiSports'
    # evaluate.py.
    'act': Protocol('free', 'act', pixel=1, frame=1),
    # MultiSports' evaluate_multisports.py, and mmaction2's copy of it.
    'multisports': Protocol('best', 'interpolated'),
}

# Of keyframes.
KEYFRAME_PROTOCOLS = {
    # get_ava_performance.py of ActivityNet until April 2020, and its copies in PySlowFast
    # and AlphAction, of which the field's tables are.
    'ava': Protocol('best', 'interpolated', drop_empty_boxes=True),
    # The same since 2020-04-24.
    'ava2020': Protocol(
        'best', 'interpolated', keyframes='named', drop_empty_boxes=True
    ),
    # mmaction2's AVAMetric.
    'mmaction2': Protocol('best', 'interpolated', 'detected', keyframes='evaluated'),
}
