from .framewise import FramewiseBackbone
from .non_local import NonLocalBlock3D
from .slowfast_pyramid import ResNet3dSlowFastPyramid
from .taps import TappedBackbone
from .timesformer import TimeSformerMap
from .uniformer_v2 import UniFormerV2Map
from .vit import CheckpointedVisionTransformer

__all__ = [
    'CheckpointedVisionTransformer',
    'FramewiseBackbone',
    'NonLocalBlock3D',
    'ResNet3dSlowFastPyramid',
    'TappedBackbone',
    'TimeSformerMap',
    'UniFormerV2Map',
]
