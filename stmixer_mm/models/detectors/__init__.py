from stmixer_mm.models.detectors.roi_detector import RoIDetector
from stmixer_mm.models.detectors.still_image import StillImageSTMixer
from stmixer_mm.models.detectors.stmixer import STMixer

__all__ = [
    'RoIDetector',
    'STMixer',
    'StillImageSTMixer',
]
