from stmixer_mm.errors import UserError, explain, user_errors

from .annotation import (
    annotated_frames,
    check_detection_path,
    check_video_path,
    detection_file,
    match_persons,
    render_video,
)
from .conversion import convert_checkpoint
from .inference import (
    KeyframeDetections,
    VideoInfo,
    check_device,
    detect_video,
    init_detector,
    keyframe_times,
    video_info,
)
from .options import DictAction
from .preflight import check_arguments, check_run, load_config, merge_overrides
from .running import build_runner

__all__ = [
    'DictAction',
    'KeyframeDetections',
    'UserError',
    'VideoInfo',
    'annotated_frames',
    'build_runner',
    'check_arguments',
    'check_detection_path',
    'check_device',
    'check_run',
    'check_video_path',
    'convert_checkpoint',
    'detect_video',
    'detection_file',
    'explain',
    'init_detector',
    'keyframe_times',
    'load_config',
    'match_persons',
    'merge_overrides',
    'render_video',
    'user_errors',
    'video_info',
]
