"""Results in the file forms of published projects, and their protocols and linkings.

Importing it adds them to ``RESULT_READERS``, ``LINKINGS``, and the tables of protocols.
"""

# ruff: noqa: F401
from stmixer_mm.projects.published import (
    frame_rows,
    openmixer_linking,
    protocols,
    retina_linking,
    road,
    tuber,
    video_tubes,
    yowo,
)
