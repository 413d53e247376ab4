from .projection import ChannelProjection3D
from .vit_pyramid import ViTPyramid3D

__all__ = ['ChannelProjection3D', 'ViTPyramid3D']
