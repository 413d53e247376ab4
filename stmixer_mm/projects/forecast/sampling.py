"""Clips with the frames that follow them, from which a forecast learns."""

from stmixer_mm.datasets.transforms import SampleKeyframeClip
from stmixer_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SampleClipAndFuture(SampleKeyframeClip):
    """A clip of :class:`SampleKeyframeClip`, and frames after it, for training.

    Args:
        num_future: This many frames more, in the same steps after the clip: the truth
            that a :class:`.WarpForecast` learns from, never a model's input.
        clip: Arguments of :class:`SampleKeyframeClip`.
    """

    def __init__(self, *, num_future: int, **clip) -> None:
        super().__init__(**clip)
        self.num_future = num_future

    @property
    def num_sampled(self) -> int:
        return self.clip_len + self.num_future
