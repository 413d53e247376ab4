from .backbones import (
    CheckpointedVisionTransformer,
    NonLocalBlock3D,
    ResNet3dSlowFastPyramid,
)
from .data_preprocessor import ClipDataPreprocessor
from .decoder import STMixerDecoder
from .head import STMixerHead
from .necks import ChannelProjection3D, ViTPyramid3D
from .stmixer import STMixer

__all__ = [
    'ChannelProjection3D',
    'CheckpointedVisionTransformer',
    'ClipDataPreprocessor',
    'NonLocalBlock3D',
    'ResNet3dSlowFastPyramid',
    'STMixer',
    'STMixerDecoder',
    'STMixerHead',
    'ViTPyramid3D',
]
