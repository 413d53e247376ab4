"""EfficientNet-Lite0, whose convolutions are fast on CPUs."""

from collections.abc import Sequence
from copy import deepcopy

from mmdet.models.backbones import EfficientNet
from mmengine.runner import CheckpointLoader

from stmixer_mm.errors import blame
from stmixer_mm.registry import MODELS

SE_RATIO = 2  # place in a setting of mmdet's
B0 = deepcopy(EfficientNet.layer_settings['b'])
for block in (block for layer in B0 for block in layer):
    block[SE_RATIO] = 0


@MODELS.register_module()
class EfficientNetLite0(EfficientNet):
    """EfficientNet-B0 without squeeze-and-excitation, with ReLU6.

    Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog,
    2020. Padding is the same on all sides, where TensorFlow's strided convolutions
    shift the picture by a pixel. Its levels are ``layers.2`` (24 channels, stride 4),
    ``layers.3`` (40, 8), ``layers.4`` (112, 16) and ``layers.5`` (320, 32).

    Args:
        checkpoint: Weights of timm's ``tf_efficientnet_lite0``, or any whose tensors come
            in the order of the layers; a file or URL.
        out_indices: Layers that yield a level.
        **kwargs: See :class:`mmdet.EfficientNet`.
    """

    layer_settings = {'b': B0}  # noqa: RUF012

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        out_indices: Sequence[int] = (2, 3, 4, 5),
        **kwargs,
    ) -> None:
        parts = dict(conv_cfg=None, act_cfg=dict(type='ReLU6'))
        super().__init__('b0', out_indices=out_indices, **parts, **kwargs)
        self.checkpoint = checkpoint

    def init_weights(self) -> None:
        super().init_weights()
        if self.checkpoint is None:
            return
        remedy = 'give a checkpoint of EfficientNet-Lite0'
        with blame(f'{self.checkpoint} does not fit EfficientNet-Lite0', remedy):
            loaded = CheckpointLoader.load_checkpoint(self.checkpoint, 'cpu')
            loaded = [value for name, value in loaded.items() if is_weight(name)]
            weights = {k: v for k, v in self.state_dict().items() if is_weight(k)}
            # Files hold the classifier too, after these.
            named = dict(zip(weights, loaded, strict=False))
            self.load_state_dict(named, strict=False)


def is_weight(name: str) -> bool:
    """True for a tensor that is more than a counter."""
    return not name.endswith('num_batches_tracked')
