"""A function for cvat-cli … task auto-annotate TASK --function-file cvat_function.py.

Options: -p model=str:CONFIG, -p weights=str:CHECKPOINT, --allow-unmatched-labels. The
task has a label "person" with a checkbox for each action. Frames of equal names, or with
the next number in their names, continue a clip; any other frame is a still.
"""

import re
from collections import deque

from stmixer_mm.apis import ActionDetInferencer

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.models import AttributeValRequest


class create:  # the name that cvat-cli calls
    def __init__(self, model: str | None = None, weights: str | None = None) -> None:
        self._inferencer = ActionDetInferencer(model, weights, show_progress=False)
        self._frames, self._place = deque(maxlen=32), None
        self._actions = dict(enumerate(self._inferencer.model.classes or ()))
        boxes = [cvataa.checkbox_attribute_spec(a, n) for n, a in self._actions.items()]
        label = cvataa.label_spec('person', 0, attributes=boxes)
        self.spec = cvataa.DetectionFunctionSpec(labels=[label])

    def detect(self, context, image) -> list:
        stem, digits = re.fullmatch(r'(.*?)(\d*)\D*', context.frame_name, re.S).groups()
        place = stem, int(digits or 0), image.size
        if self._place not in (place, (stem, place[1] - 1, image.size)):
            self._frames.clear()
        self._place = place
        self._frames.append(np.asarray(image.convert('RGB')))
        thr = 0.3 if context.conf_threshold is None else context.conf_threshold
        options = dict(fps=25, tracker=None, pred_score_thr=thr, strict=True)
        start = (len(self._frames) - 1) / 25
        detections = self._inferencer.detect([*self._frames], start=start, **options)
        persons = detections.keyframes[-1].persons
        return [self._shape(p) for p in persons if p.score is None or p.score >= thr]

    def _shape(self, person):
        names = {scored_action.action for scored_action in person.actions}
        texts = {n: str(name in names).lower() for n, name in self._actions.items()}
        values = [AttributeValRequest(spec_id=n, value=x) for n, x in texts.items()]
        return cvataa.rectangle(0, [*person.bbox], attributes=values)
