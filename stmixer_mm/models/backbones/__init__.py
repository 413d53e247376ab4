from .non_local import NonLocalBlock3D
from .slowfast_pyramid import ResNet3dSlowFastPyramid
from .vit import CheckpointedVisionTransformer

__all__ = [
    'CheckpointedVisionTransformer',
    'NonLocalBlock3D',
    'ResNet3dSlowFastPyramid',
]
