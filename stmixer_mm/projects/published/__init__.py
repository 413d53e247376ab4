"""Results in the file forms of published projects.

Importing it adds their readers to ``RESULT_READERS``.
"""

# ruff: noqa: F401
from stmixer_mm.projects.published import frame_rows, road, tuber, video_tubes, yowo
