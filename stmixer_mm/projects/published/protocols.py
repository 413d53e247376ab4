"""Protocols of published scripts, and their suppression in frames."""

import sys
from dataclasses import replace

from stmixer_mm.evaluation.functional.linking import FRAME_NMS, Linking
from stmixer_mm.evaluation.functional.protocols import (
    FRAME_PROTOCOLS,
    TUBE_PROTOCOLS,
    BoxRule,
    Protocol,
)

# pascalvoc.py of YOWO and YOWOv2, whose list files lack some frames: drop_last_frame.
# Files that YOWO wrote are mislabelled: each class of a box has the label of the best.
_YOWO = Protocol('best', 'interpolated', pixel=1, frames='annotated')
# YOWOFormer and YOWOv3: truth is only counted in frames with a detection.
_YOWOFORMER = Protocol(
    'best', 'yolo', frames='annotated', last_of_equal=True, skip_silent_frames=True
)

FRAME_PROTOCOLS |= {
    # test-ucf24.py of ROAD's Python port; its truth lies a pixel right and below, as a
    # subtraction is overwritten.
    'road_python': Protocol(
        'free',
        'interpolated',
        'all',
        detected_boxes=BoxRule(clip=0),
        true_boxes=BoxRule(clip=1, shift=1),
    ),
    # frameAp.m of ROAD: detections are a pixel wider than the truth.
    'road_matlab': Protocol(
        'free',
        'interpolated',
        'all',
        score_thr=0.01,
        nms='road_matlab',
        detected_boxes=BoxRule(clip=1, grow=1),
    ),
    # evaluate_frames of 3D-RetinaNet; its truth is a pixel narrower than annotated.
    'retina': Protocol('free', 'act', 'all', true_boxes=BoxRule(grow=-1)),
    'yowo': _YOWO._replace(detected_boxes=BoxRule(whole=True)),
    'yowov2': _YOWO._replace(detected_boxes=BoxRule(clip=0, whole=True)),
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
    detected_boxes=BoxRule(clip=0),
    least_common=2,
    extra_gts=1e-5,
)

TUBE_PROTOCOLS |= {
    # Boxes of each fifth annotated frame are linked, and compared with all of the truth.
    'openmixer': TUBE_PROTOCOLS['multisports']._replace(
        remade=True, frames='annotated', every=5
    ),
    # ROAD's MATLAB code, which adds 1 to detections that count from 1 already.
    'road': Protocol(
        'free',
        'interpolated',
        'all',
        frame=1,
        score_thr=0.001,
        detected_boxes=BoxRule(clip=1, shift=1, grow=1),
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

# test-ucf24.py and frameAp.m of ROAD.
FRAME_NMS['road_python'] = Linking(
    nms_iou=0.45, candidates=20, top_k=sys.maxsize, nms_pixel=0
)
FRAME_NMS['road_matlab'] = Linking(nms_iou=0.45, candidates=50, top_k=20, nms_pixel=0)
# YOWO's, by objectness, and 3D-RetinaNet's, by agentness: here by the best score.
FRAME_NMS['yowo'] = replace(
    FRAME_NMS['act'], nms_iou=0.4, nms_pixel=0, over_classes=True
)
FRAME_NMS['retina'] = replace(FRAME_NMS['yowo'], nms_iou=0.5)
