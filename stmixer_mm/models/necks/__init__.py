from .bifpn3d import BiFPN3D
from .fpn3d import FPN3D
from .framewise import FramewiseNeck
from .pafpn3d import PAFPN3D
from .projection import ChannelProjection3D
from .resample_time import ResampleTime
from .vit_pyramid import ViTPyramid3D

__all__ = [
    'FPN3D',
    'PAFPN3D',
    'BiFPN3D',
    'ChannelProjection3D',
    'FramewiseNeck',
    'ResampleTime',
    'ViTPyramid3D',
]
