import atexit
import gc
import logging
import os
import sys
from pathlib import Path

import pytest

if 'PYTEST_XDIST_WORKER' in os.environ:
    # Workers, and the tools that they start, share the cores; read by import torch.
    os.environ['OMP_NUM_THREADS'] = '1'

import torch
from mmengine.config import config
from mmengine.utils import manager

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests

from numbered_videos import (  # noqa: F401
    encode_video,
    frame_number,
    write_frames,
    write_video,
)
from tiny_ava import ava  # noqa: F401
from tiny_stmixer import write_model

import stmixer_mm  # noqa: F401

# A short run would spend half of its time on how its config looks in the log, and
# on garbage collections that find the imported modules alive.
config.FormatCode = lambda text, **options: (text, True)
gc.freeze()
atexit.register(gc.unfreeze)
# mmengine's loggers outlive the captured streams that they write to.
logging.raiseExceptions = False


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def mmaction_scope():
    """Plain type names, as under the configs' ``default_scope``."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmaction'):
        yield


@pytest.fixture(autouse=True)
def free_lock():
    """mmengine keeps its lock where a logger cannot be made: other threads would wait."""
    yield
    while manager._lock._is_owned():
        manager._lock.release()


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory):
    """Config and untrained checkpoint of a tiny detector, beside its videos."""
    return write_model(tmp_path_factory.mktemp('tiny'))


@pytest.fixture
def write_text(tmp_path):
    """Write lines into a file and return its path as a string."""

    def write(name, *lines):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(f'{line}\n' for line in lines))
        return str(path)

    return write
