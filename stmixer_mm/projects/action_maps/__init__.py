"""Maps of evidence for each action, averaged in the boxes that the decoder finds."""

from stmixer_mm.projects.action_maps.action_maps import ActionMapDecoder, ActionMaps

__all__ = ['ActionMapDecoder', 'ActionMaps']
