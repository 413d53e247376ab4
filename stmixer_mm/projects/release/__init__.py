"""The release of the paper: its models by name, and its checkpoints.

It states no licence for its weights.
"""

from stmixer_mm.projects.release.conversion import convert_checkpoint
from stmixer_mm.projects.release.models import fetch, list_fitting

__all__ = ['convert_checkpoint', 'fetch', 'list_fitting']
