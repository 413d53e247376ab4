"""A detector as an ONNX model, from which files of all formats are made."""

import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from copy import deepcopy
from functools import cached_property
from io import StringIO

import torch
from torch.export import Dim, ExportedProgram

from stmixer_mm.errors import UserError
from stmixer_mm.projects.export.tensors import INPUT, Outputs, TensorDetector

OPSET = 20  # the first with GridSample as PyTorch computes it
SMALLEST = 33  # dynamic height and width: two cells at a stride of 32


class Traced:
    """The ONNX model of a detector.

    Args:
        detector: What to trace.
        shape: (T, h, w) of the clips.
        batch: Clips at once; None: any number.
        any_size: Whether height and width are dynamic too.

    Attributes:
        shape: As given, with None for a dynamic height and width.
    """

    def __init__(
        self,
        detector: TensorDetector,
        shape: Sequence[int],
        batch: int | None,
        *,
        any_size: bool = False,
    ) -> None:
        if any_size and min(shape[1:]) < SMALLEST:
            raise UserError(
                f'--dynamic size needs at least {SMALLEST} pixels of height and width, '
                f'but clips are {shape[1]}x{shape[2]}; give a larger --shape or video.'
            )
        self.detector = detector
        self.shape = [shape[0], None, None] if any_size else [*shape]
        self.batch = batch
        self._clips = torch.zeros(batch or 2, 3, *shape, dtype=torch.uint8)
        self._dynamic = {} if batch else {0: Dim('batch', min=1, max=4096)}
        if any_size:
            for dim, name in (3, 'height'), (4, 'width'):
                self._dynamic[dim] = Dim(name, min=SMALLEST, max=8192)

    @cached_property
    def onnx(self) -> object:
        """A ``ModelProto``; its nodes name the modules that they belong to."""
        for package in ('onnx', 'onnxscript'):
            import_package(package)
        for name in ('torch.onnx', 'onnxscript', 'onnx_ir'):  # which log each step
            logging.getLogger(name).setLevel(logging.ERROR)
        names = {axis: dim.__name__ for axis, dim in self._dynamic.items()}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                onnx = torch.onnx.export(
                    self.program(),
                    input_names=[INPUT],
                    output_names=Outputs._fields,
                    opset_version=OPSET,
                    dynamic_shapes=(names,),
                    dynamo=True,
                    verbose=False,
                )
            except torch.onnx.OnnxExporterError as error:  # it only names the step
                raise error.__cause__ or error from None
        return onnx.model_proto

    def program(self) -> ExportedProgram:
        """The program that the ONNX model is made of."""
        detector = deepcopy(self.detector)
        if hasattr(detector.model.decoder, 'sampling_backend'):
            detector.model.decoder.sampling_backend = 'grid_means'
        detector(self._clips)  # so that parts keep real tensors from a first call
        with redirect_stderr(StringIO()):  # where it prints all that it has traced
            return torch.export.export(
                detector, (self._clips,), dynamic_shapes=(self._dynamic,), strict=False
            )


def import_package(name: str) -> object:
    """Import an optional package; raises ``UserError`` if it is missing."""
    try:
        return __import__(name)
    except ImportError as error:
        raise UserError(
            f"{name} is missing ({error}); pip install 'stmixer_mm[export]'."
        ) from error
