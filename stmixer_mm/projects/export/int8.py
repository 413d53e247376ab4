"""ONNX models with products in 8 bits."""

import ast
import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stmixer_mm.projects.export.tensors import INPUT
from stmixer_mm.projects.export.traced import import_package

PRODUCTS = frozenset(('Conv', 'MatMul', 'Gemm'))


def quantise(model: object, calibration: Sequence[np.ndarray]) -> object:
    """Products with weights in 8 bits: of the backbone, the neck and adaptive mixing.

    Boxes, scores, attention, and all that is not multiplied by weights stay in float32.

    Args:
        model: As exported, with the names of modules in its nodes.
        calibration: Clips (B, 3, T, h, w), uint8, to measure ranges of values on.
    """
    onnx = import_package('onnx')
    import_package('onnxruntime')
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.clips = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({INPUT: clips} for clips in self.clips), None)

    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime recommends more steps
    with TemporaryDirectory() as folder:
        file = Path(folder, 'model.onnx')
        quantize_static(
            model,
            file,
            Reader(),
            nodes_to_quantize=[
                node.name for node in model.graph.node if _is_quantised(node)
            ],
            per_channel=True,
            extra_options=dict(MatMulConstBOnly=True),
        )
        return onnx.load(file)


def _is_quantised(node: object) -> bool:
    entries = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(entries.get('pkg.torch.onnx.name_scopes', "['', '']"))
    module = scopes[-2]  # such as 'model.backbone.layer1.0.conv2'
    is_inside = module.startswith(('model.backbone', 'model.neck'))
    return node.op_type in PRODUCTS and (is_inside or '.mixing.' in module)
