from .asymmetric import AsymmetricLoss
from .class_balanced import ClassBalancedLoss

__all__ = ['AsymmetricLoss', 'ClassBalancedLoss']
