from .checkpoints import (
    StateDifference,
    check_checkpoint_file,
    check_state,
    compare_state,
    load_checkpoint_file,
    state_dict_of,
)
from .files import (
    AtomicLocalBackend,
    atomic_path,
    check_file,
    check_json_path,
    check_writable_dir,
    check_writable_file,
    write_atomically,
    write_json,
)
from .hooks import CheckCheckpointHook, CheckPartsHook, SafeCheckpointHook
from .optim import BFloat16OptimWrapper
from .visualization_hook import KeyframeVisualizationHook

__all__ = [
    'AtomicLocalBackend',
    'BFloat16OptimWrapper',
    'CheckCheckpointHook',
    'CheckPartsHook',
    'KeyframeVisualizationHook',
    'SafeCheckpointHook',
    'StateDifference',
    'atomic_path',
    'check_checkpoint_file',
    'check_file',
    'check_json_path',
    'check_state',
    'check_writable_dir',
    'check_writable_file',
    'compare_state',
    'load_checkpoint_file',
    'state_dict_of',
    'write_atomically',
    'write_json',
]
