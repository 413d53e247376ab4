from stmixer_mm.models.backbones.framewise import FramewiseBackbone
from stmixer_mm.models.backbones.non_local import NonLocalBlock3D
from stmixer_mm.models.backbones.slowfast_pyramid import ResNet3dSlowFastPyramid
from stmixer_mm.models.backbones.taps import TappedBackbone
from stmixer_mm.models.backbones.timesformer import TimeSformerMap
from stmixer_mm.models.backbones.uniformer_v2 import UniFormerV2Map
from stmixer_mm.models.backbones.vit import CheckpointedVisionTransformer

__all__ = [
    'CheckpointedVisionTransformer',
    'FramewiseBackbone',
    'NonLocalBlock3D',
    'ResNet3dSlowFastPyramid',
    'TappedBackbone',
    'TimeSformerMap',
    'UniFormerV2Map',
]
