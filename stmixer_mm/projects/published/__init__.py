"""Results in the file forms of published projects.

Importing it adds their readers to ``RESULT_READERS``.
"""

# ruff: noqa: F401
from stmixer_mm.projects.published.frame_rows import frame_results
from stmixer_mm.projects.published.video_tubes import folder_results, tube_results
