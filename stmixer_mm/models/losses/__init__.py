from stmixer_mm.models.losses.asymmetric import AsymmetricLoss
from stmixer_mm.models.losses.class_balanced import ClassBalancedLoss

__all__ = ['AsymmetricLoss', 'ClassBalancedLoss']
