"""What the tools in ``tools/analysis`` share: models, clips, counting and tables."""

from stmixer_mm.profiling.clips import (
    ClipDataset,
    ClipPipeline,
    config_clips,
    extract_frames,
    made_up_clip,
    video_clips,
)
from stmixer_mm.profiling.flops import PartCount, count_flops, count_parts
from stmixer_mm.profiling.memory import bytes_kept_for_backward, peak_bytes
from stmixer_mm.profiling.meter import Meter, clock, medians, take_turns, watch_children
from stmixer_mm.profiling.models import (
    build_model,
    construct_model,
    num_classes_of,
    quieten,
    read_config,
)
from stmixer_mm.profiling.report import format_table, machine

__all__ = [
    'ClipDataset',
    'ClipPipeline',
    'Meter',
    'PartCount',
    'build_model',
    'bytes_kept_for_backward',
    'clock',
    'config_clips',
    'construct_model',
    'count_flops',
    'count_parts',
    'extract_frames',
    'format_table',
    'machine',
    'made_up_clip',
    'medians',
    'num_classes_of',
    'peak_bytes',
    'quieten',
    'read_config',
    'take_turns',
    'video_clips',
    'watch_children',
]
