from stmixer_mm.visualization.draw import (
    draw_detections,
    enlarge,
    side_by_side,
    write_picture,
)
from stmixer_mm.visualization.visualizer import (
    STADVisualizer,
    draw_ground_truth,
    top_actions,
)

__all__ = [
    'STADVisualizer',
    'draw_detections',
    'draw_ground_truth',
    'enlarge',
    'side_by_side',
    'top_actions',
    'write_picture',
]
