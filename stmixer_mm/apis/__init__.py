"""Detection in videos, and runners."""

# ruff: noqa: F401
from stmixer_mm.apis.inference import detect_video, init_detector
from stmixer_mm.apis.inferencer import ActionDetInferencer
from stmixer_mm.apis.rendering import render_video
from stmixer_mm.apis.results import detections_schema, plot_keyframe
from stmixer_mm.apis.running import build_runner
from stmixer_mm.structures import Action, Keyframe, Person, VideoDetections
