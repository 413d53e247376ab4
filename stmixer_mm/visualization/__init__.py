from stmixer_mm.visualization.draw import (
    draw_detections,
    enlarge,
    side_by_side,
    write_picture,
)
from stmixer_mm.visualization.visualizer import STADVisualizer, top_actions

__all__ = [
    'STADVisualizer',
    'draw_detections',
    'enlarge',
    'side_by_side',
    'top_actions',
    'write_picture',
]
