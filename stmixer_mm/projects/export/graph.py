"""ONNX models in lower precision."""

import ast
import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stmixer_mm.projects.export.tensors import INPUT
from stmixer_mm.projects.export.traced import import_package

PRODUCTS = frozenset(('Conv', 'MatMul', 'Gemm'))


def in_float16(model: object) -> object:
    """Products in float16, all else in float32.

    With softmax, norms and the exponentials of boxes in half precision, detectors with
    queries lose their boxes.
    """
    import_package('onnxruntime')
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(
        model,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=sorted({node.op_type for node in model.graph.node} - PRODUCTS),
    )


def in_int8(model: object, calibration: Sequence[np.ndarray]) -> object:
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

    def is_meant(node: object) -> bool:
        module = _module_of(node)
        is_inside = module.startswith(('model.backbone', 'model.neck'))
        return node.op_type in PRODUCTS and (is_inside or '.mixing.' in module)

    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime recommends more steps
    with TemporaryDirectory() as folder:
        file = Path(folder, 'model.onnx')
        quantize_static(
            model,
            file,
            Reader(),
            nodes_to_quantize=[
                *(node.name for node in filter(is_meant, model.graph.node))
            ],
            per_channel=True,
            extra_options=dict(MatMulConstBOnly=True),
        )
        return onnx.load(file)


def _module_of(node: object) -> str:
    """Such as 'model.backbone.layer1.0.conv2'; empty if the node lacks it."""
    entries = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(entries.get('pkg.torch.onnx.name_scopes', "['', '']"))
    return scopes[-2]
