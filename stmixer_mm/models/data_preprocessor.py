"""One normalised, padded tensor of a batch of uint8 clips."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import Tensor

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
        channels_last: Lay the clips out with the channels last, as convolutions on a
            CPU like them.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        pad_size_divisor: int = 32,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.pad_size_divisor = pad_size_divisor
        self.memory_format = (
            torch.channels_last_3d if channels_last else torch.contiguous_format
        )
        for name, values in (('mean', mean), ('std', std)):
            values = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """``inputs`` (B, 3, T, H, W), and ``data_samples`` with their shapes.

        Args:
            data: ``inputs``, B clips (3, T, H, W) or (1, 3, T, H, W), and
                ``data_samples``.
            training: Unused; part of the host's interface.
        """
        if 'inputs' not in data:
            raise UserError('The pipeline must end with PackActionInputs, for inputs.')
        data = self.cast_data(data)
        clips, data_samples = single_clips(data['inputs']), data['data_samples']
        shapes = [tuple(clip.shape[-2:]) for clip in clips]
        pad_shape = tuple(self.pad_size(sizes) for sizes in zip(*shapes, strict=True))
        # One buffer: on a CPU, the pages of several would take time.
        inputs = torch.empty(
            (len(clips), *clips[0].shape[:2], *pad_shape),
            dtype=self.mean.dtype,
            device=self.mean.device,
            memory_format=self.memory_format,
        )
        if any(shape != pad_shape for shape in shapes):
            inputs.zero_()
        # As :meth:`normalise`, in one kernel a clip; the padding's zeros stay.
        for padded, clip, (height, width) in zip(inputs, clips, shapes, strict=True):
            torch.sub(clip, self.mean, out=padded[..., :height, :width])
        inputs.div_(self.std)
        for sample, shape in zip(data_samples, shapes, strict=True):
            shape = sample.get('img_shape', shape)
            meta = dict(img_shape=shape, pad_shape=pad_shape, clip_len=inputs.size(2))
            sample.set_metainfo(meta)
        return dict(inputs=inputs, data_samples=data_samples)

    def cast_data(self, data: dict) -> dict:
        """All tensors of a batch on the model's device, in one copy."""
        if self.device.type == 'cpu':
            return super().cast_data(data)
        return move_together(data, self.device)

    def normalise(self, clip: Tensor) -> Tensor:
        """Normalise a clip (3, T, H, W), or several."""
        return clip.sub(self.mean).div_(self.std)

    def pad_size(self, sizes: Sequence[int]) -> int:
        """The smallest multiple of the divisor that no size exceeds."""
        # No floor of a negative quotient: ONNX rounds that towards zero.
        divisor = self.pad_size_divisor
        return (max(sizes) + divisor - 1) // divisor * divisor


def map_tensors(data: object, change: Callable[[Tensor], object]) -> object:
    """A copy of samples of a loader with its tensors on the host changed."""
    if isinstance(data, Tensor):
        return change(data) if data.device.type == 'cpu' else data
    if isinstance(data, BaseDataElement):
        changed = data.new()
        changed.set_data(map_tensors(dict(data.items()), change))
        return changed
    if isinstance(data, Mapping):
        return {name: map_tensors(value, change) for name, value in data.items()}
    if isinstance(data, list | tuple):
        values = [map_tensors(value, change) for value in data]
        return type(data)(*values) if hasattr(data, '_fields') else values
    return data


def move_together(data: object, device: torch.device) -> object:
    """A copy of samples of a loader with its tensors of the host on a device.

    They are parts of one buffer, which crosses without a wait.
    """
    tensors: list[Tensor] = []
    map_tensors(data, lambda tensor: tensors.append(tensor) or tensor)
    # Multiples of any type's size.
    sizes = [-8 * (-tensor.nbytes // 8) for tensor in tensors]
    pinned = device.type == 'cuda' and torch.cuda.is_available()
    buffer = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pinned)

    def parts(buffer: Tensor) -> list[Tensor]:
        return [
            part[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            for part, tensor in zip(buffer.split(sizes), tensors, strict=True)
        ]

    for part, tensor in zip(parts(buffer), tensors, strict=True):
        part.copy_(tensor)
    copies = iter(parts(buffer.to(device, non_blocking=True)))
    return map_tensors(data, lambda _: next(copies))


def single_clips(inputs: Iterable[Tensor]) -> list[Tensor]:
    """Clips (3, T, H, W), from such clips or from (1, 3, T, H, W)."""
    return [clip.squeeze(0) if clip.dim() == 5 else clip for clip in inputs]
