"""Levels of a feature pyramid as necks take them.

Shapes: B clips, C channels, T frames, L levels; levels are finest first.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from stmixer_mm.errors import UserError


def as_levels(feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """One feature map, or several, as a list."""
    return [feats] if isinstance(feats, Tensor) else list(feats)


def check_channels(levels: Sequence[Tensor], neck: nn.Module) -> None:
    """Check levels (B, C_l, T, H_l, W_l) against the ``in_channels`` of a neck."""
    channels, expected = [level.size(1) for level in levels], list(neck.in_channels)
    if channels != expected:
        raise UserError(
            f'{type(neck).__name__} has in_channels={expected} but is given levels of '
            f'{channels} channels; set the one to the other.'
        )
