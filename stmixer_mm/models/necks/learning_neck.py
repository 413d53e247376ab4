"""The base of necks with losses of their own.

Shapes: B clips of T_in frames.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence

from mmengine.model import BaseModule
from torch import Tensor


class LearningNeck(BaseModule, metaclass=ABCMeta):
    """A neck with a loss of its own, which may use frames that follow the clip.

    ``clip_len`` is the number of frames of the clip; what follows is for the loss.
    """

    clip_len: int

    @abstractmethod
    def loss(
        self,
        feats: Sequence[Tensor],
        inputs: Tensor,
        extract: Callable[[Tensor], Tensor | Sequence[Tensor]],
    ) -> dict[str, Tensor]:
        """Weighted loss terms of ``feats``, which the neck made of the clip.

        Args:
            feats: Levels.
            inputs: The clip and the frames that follow it, (B, 3, T_in, H, W).
            extract: Clips to what the neck is given.
        """
