from .errors import explain, user_errors
from .preflight import check_arguments, check_run, load_config, merge_overrides
from .running import build_runner

__all__ = [
    'build_runner',
    'check_arguments',
    'check_run',
    'explain',
    'load_config',
    'merge_overrides',
    'user_errors',
]
