"""Small persons in large frames: tiles of the frame are detected in beside the whole."""

from stmixer_mm.projects.tiles.random_tile import RandomTile
from stmixer_mm.projects.tiles.tiles import Tiles

__all__ = ['RandomTile', 'Tiles']
