"""Detection in videos, runners and checkpoint conversion."""

from stmixer_mm.apis.conversion import convert_checkpoint
from stmixer_mm.apis.inference import (
    KeyframeDetections,
    VideoInfo,
    check_device,
    detect_video,
    init_detector,
    keyframe_times,
    video_info,
)
from stmixer_mm.apis.rendering import (
    annotated_frames,
    check_detection_path,
    check_video_path,
    detection_file,
    match_persons,
    render_video,
)
from stmixer_mm.apis.running import add_cfg_options, build_runner

__all__ = [
    'KeyframeDetections',
    'VideoInfo',
    'add_cfg_options',
    'annotated_frames',
    'build_runner',
    'check_detection_path',
    'check_device',
    'check_video_path',
    'convert_checkpoint',
    'detect_video',
    'detection_file',
    'init_detector',
    'keyframe_times',
    'match_persons',
    'render_video',
    'video_info',
]
