from .backbones import (
    CheckpointedVisionTransformer,
    FramewiseBackbone,
    NonLocalBlock3D,
    ResNet3dSlowFastPyramid,
    TappedBackbone,
    TimeSformerMap,
    UniFormerV2Map,
)
from .data_preprocessor import ClipDataPreprocessor
from .decoder import DeformableDecoder, STMixerDecoder
from .denoising import DenoisingQueries
from .head import STMixerHead
from .losses import AsymmetricLoss, ClassBalancedLoss
from .necks import (
    FPN3D,
    PAFPN3D,
    BiFPN3D,
    ChannelProjection3D,
    FramewiseNeck,
    ResampleTime,
    ViTPyramid3D,
)
from .roi_detector import RoIDetector
from .still_image import StillImageSTMixer
from .stmixer import STMixer

__all__ = [
    'FPN3D',
    'PAFPN3D',
    'AsymmetricLoss',
    'BiFPN3D',
    'ChannelProjection3D',
    'CheckpointedVisionTransformer',
    'ClassBalancedLoss',
    'ClipDataPreprocessor',
    'DeformableDecoder',
    'DenoisingQueries',
    'FramewiseBackbone',
    'FramewiseNeck',
    'NonLocalBlock3D',
    'ResNet3dSlowFastPyramid',
    'ResampleTime',
    'RoIDetector',
    'STMixer',
    'STMixerDecoder',
    'STMixerHead',
    'StillImageSTMixer',
    'TappedBackbone',
    'TimeSformerMap',
    'UniFormerV2Map',
    'ViTPyramid3D',
]
