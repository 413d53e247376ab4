"""Annotation tools' files, read and written: CVAT, Label Studio, COCO with videos.

Read are "CVAT for video 1.1" (one task or job, https://docs.cvat.ai, XML annotation
format), Label Studio's JSON (:mod:`.labelstudio`) and JSON as COCO's with ``videos``, ``images`` that have a ``video_id`` and a
``frame_id``, and ``annotations`` that may have a ``track_id`` or ``instance_id``
(mmtracking's CocoVID, TAO). Frames count from 0; boxes are pixel xyxy once read.
Detections are written in the same formats, for annotators to correct.

Actions are attributes of a person: a checkbox is named as its action, the values of a
select or radio are actions. A file without such attributes has an action in each label
(category).
"""

# ruff: noqa: F401
from stmixer_mm.projects.annotate.coco import write_coco
from stmixer_mm.projects.annotate.cvat import write_cvat
from stmixer_mm.projects.annotate.labelstudio import write_labelstudio
