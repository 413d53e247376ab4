"""From a batch of uint8 clips to one normalised, padded tensor."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor
from torch.nn import functional as F

from stmixer_mm.errors import UserError
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class ClipDataPreprocessor(BaseDataPreprocessor):
    """Normalise each clip, then pad height and width with zeros; never time.

    The host's ``ActionDataPreprocessor`` pads before it normalises.

    Args:
        mean: Mean of each channel, 0 to 255.
        std: Standard deviation of each channel.
        pad_size_divisor: Height and width of the batch become multiples of it.
        to_rgb: Reverse the channels of the clips, for clips in BGR.
        non_blocking: Copy to the device without waiting.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        pad_size_divisor: int = 32,
        to_rgb: bool = False,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        channels = {len(mean), len(std)}
        if pad_size_divisor < 1 or not channels <= {1, 3} or not min(std) > 0:
            raise UserError(
                f'The data preprocessor has mean={mean}, std={std} and pad_size_divisor='
                f'{pad_size_divisor}; give each of 3 channels a mean and a std above 0, '
                'and a divisor of 1 or more.'
            )
        self.pad_size_divisor = pad_size_divisor
        self.to_rgb = to_rgb
        for name, values in (('mean', mean), ('std', std)):
            values = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """
        Args:
            data: ``inputs``, B clips (3, T, H, W) or (1, 3, T, H, W), and
                ``data_samples``.
            training: Unused; part of the host's interface.

        Returns:
            ``inputs`` (B, 3, T, H, W) and ``data_samples``, each of which has learnt
            its ``img_shape`` (if it lacked one), ``pad_shape`` and ``clip_len``.
        """
        if 'inputs' not in data:
            raise UserError(
                'The samples hold no inputs; end the pipeline with PackActionInputs.'
            )
        data = self.cast_data(data)
        clips = [self.normalise(clip) for clip in data['inputs']]
        shapes = [tuple(clip.shape[-2:]) for clip in clips]
        if len({clip.shape[1] for clip in clips}) > 1:
            raise UserError(
                f'A batch holds clips of {sorted({clip.shape[1] for clip in clips})} '
                'frames; use the same clip_len for all of them.'
            )
        pad_shape = tuple(self.pad_size(sizes) for sizes in zip(*shapes, strict=True))
        inputs = torch.stack([pad_bottom_right(clip, pad_shape) for clip in clips])

        data_samples = data['data_samples']
        for sample, shape in zip(data_samples, shapes, strict=True):
            sample.set_metainfo(
                dict(
                    img_shape=sample.get('img_shape', shape),
                    pad_shape=pad_shape,
                    clip_len=inputs.size(2),
                )
            )
        return dict(inputs=inputs, data_samples=data_samples)

    def normalise(self, clip: Tensor) -> Tensor:
        clip = clip.squeeze(0) if clip.dim() == 5 else clip
        if self.to_rgb:
            clip = clip.flip(0)
        return (clip.float() - self.mean) / self.std

    def pad_size(self, sizes: Sequence[int]) -> int:
        """The smallest multiple of the divisor that no size exceeds."""
        return -(-max(sizes) // self.pad_size_divisor) * self.pad_size_divisor


def pad_bottom_right(clip: Tensor, shape: tuple[int, int]) -> Tensor:
    """Zeros at the bottom and the right, up to (h, w)."""
    return F.pad(clip, (0, shape[1] - clip.shape[-1], 0, shape[0] - clip.shape[-2]))
