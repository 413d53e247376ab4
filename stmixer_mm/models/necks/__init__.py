from stmixer_mm.models.necks.bifpn3d import BiFPN3D
from stmixer_mm.models.necks.fpn3d import FPN3D
from stmixer_mm.models.necks.framewise import FramewiseNeck
from stmixer_mm.models.necks.pafpn3d import PAFPN3D
from stmixer_mm.models.necks.projection import ChannelProjection3D
from stmixer_mm.models.necks.resample_time import ResampleTime
from stmixer_mm.models.necks.vit_pyramid import ViTPyramid3D

__all__ = [
    'FPN3D',
    'PAFPN3D',
    'BiFPN3D',
    'ChannelProjection3D',
    'FramewiseNeck',
    'ResampleTime',
    'ViTPyramid3D',
]
