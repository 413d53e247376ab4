from .draw import draw_detections
from .visualizer import STADVisualizer, top_actions

__all__ = ['STADVisualizer', 'draw_detections', 'top_actions']
