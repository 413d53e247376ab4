"""A client of an exported model: persons of video.mp4 by model.onnx, each second."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession('model.onnx')
about = json.loads(Path('model.onnx.json').read_text())
video = cv2.VideoCapture('video.mp4')
fps, frames, (long, short) = video.get(cv2.CAP_PROP_FPS), [], about['sides']
while (read := video.read())[0]:
    height, width = read[1].shape[:2]
    scale = min((long or np.inf) / max(height, width), short / min(height, width))
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    frames.append(cv2.resize(read[1], size)[..., ::-1])  # BGR to RGB


def iou(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = sides.clip(0).prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


steps = (np.arange(about['shape'][0]) - about['keyframe']) * about['frame_interval']
for second in np.arange(0, len(frames) / fps, 1.0):
    keyframe = min(round(second * fps), len(frames) - 1)
    numbers = (keyframe + steps).clip(0, len(frames) - 1)
    clip = np.stack([frames[number] for number in numbers]).transpose(3, 0, 1, 2)
    outputs = session.run(None, {'clips': clip[None]})
    persons, actions, bboxes, _ = (values[0] for values in outputs)
    kept = []
    for query in np.argsort(-persons, kind='stable'):
        is_sure = persons[query] >= about['person_thr']
        ious = [iou(bboxes[query], bboxes[other]) for other in kept]
        if is_sure and max(ious, default=0) <= about['nms_thr']:
            kept.append(query)
            print(keyframe, bboxes[query] * [width, height, width, height])
            for action in np.flatnonzero(actions[query] >= about['action_thr']):
                print('   ', about['classes'][action], actions[query, action])
