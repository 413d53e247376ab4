"""Parts of models: importing them registers them."""

# ruff: noqa: F401
from stmixer_mm.models.backbones.efficientnet_lite import EfficientNetLite0
from stmixer_mm.models.backbones.framewise import FramewiseBackbone
from stmixer_mm.models.backbones.slowfast_pyramid import (
    NonLocalBlock3D,
    ResNet3dSlowFastPyramid,
)
from stmixer_mm.models.backbones.vit import CheckpointedVisionTransformer
from stmixer_mm.models.data_preprocessor import ClipDataPreprocessor
from stmixer_mm.models.decoder.initial_boxes import WholeFrameBoxes
from stmixer_mm.models.decoder.stmixer_decoder import STMixerDecoder
from stmixer_mm.models.detectors.stmixer import STMixer
from stmixer_mm.models.heads.stmixer_head import STMixerHead
from stmixer_mm.models.necks.framewise import FramewiseNeck
from stmixer_mm.models.necks.projection import ChannelProjection3D
from stmixer_mm.models.necks.vit_pyramid import ViTPyramid3D
