"""A detector as a program, from which files of all formats are made."""

import logging
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from copy import deepcopy
from functools import cached_property
from io import StringIO

import torch

from stmixer_mm.errors import UserError
from stmixer_mm.projects.export.tensors import (
    INPUT,
    InBfloat16,
    Outputs,
    TensorDetector,
)

OPSET = 20  # the first with GridSample as PyTorch computes it
# Sampling back ends.
FOR_PYTORCH = 'embedding_bag'
FOR_ALL_RUNTIMES = 'grid_means'
SMALLEST = 33  # dynamic height and width: two cells at a stride of 32


class Traced:
    """Programs of a detector, each made once, when it is needed.

    Args:
        detector: It is copied.
        shape: (T, h, w) of the clips.
        batch: Clips at once; None: any number.
        any_size: Whether height and width are dynamic too.
    """

    def __init__(
        self,
        detector: TensorDetector,
        shape: Sequence[int],
        batch: int | None,
        *,
        any_size: bool = False,
    ) -> None:
        self.detector = deepcopy(detector)
        self.clips = torch.zeros(batch or 2, 3, *shape, dtype=torch.uint8)
        dims = {}
        if batch is None:
            dims[0] = torch.export.Dim('batch', min=1, max=4096)
        if any_size:
            for dim, name in (3, 'height'), (4, 'width'):
                dims[dim] = torch.export.Dim(name, min=SMALLEST, max=8192)
        self.dynamic = (dims,)

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        return self._trace(self.detector, FOR_PYTORCH)

    @cached_property
    def program_in_bfloat16(self) -> torch.export.ExportedProgram:
        return self._trace(InBfloat16(self.detector), FOR_PYTORCH)

    @cached_property
    def onnx(self) -> object:
        """A ``ModelProto``; its nodes name the modules that they belong to."""
        for package in ('onnx', 'onnxscript'):
            import_package(package)
        for name in ('torch.onnx', 'onnxscript', 'onnx_ir'):  # which log each step
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                onnx = torch.onnx.export(
                    self._trace(self.detector, FOR_ALL_RUNTIMES),
                    input_names=[INPUT],
                    output_names=Outputs._fields,
                    opset_version=OPSET,
                    dynamo=True,
                    verbose=False,
                )
            except torch.onnx.OnnxExporterError as error:  # it only names the step
                raise error.__cause__ or error from None
        return onnx.model_proto

    def _trace(
        self, detector: torch.nn.Module, sampling_backend: str
    ) -> torch.export.ExportedProgram:
        decoder = self.detector.model.decoder
        if hasattr(decoder, 'sampling_backend'):
            decoder.sampling_backend = sampling_backend
        detector(self.clips)  # so that parts keep real tensors from a first call
        try:
            with redirect_stderr(StringIO()):  # where it prints all that it has traced
                return torch.export.export(
                    detector, (self.clips,), dynamic_shapes=self.dynamic, strict=False
                )
        except Exception as error:
            error.part = _find_part(error, detector)
            raise


def _find_part(error: Exception, detector: torch.nn.Module) -> str:
    """Name of the innermost module that was running when an error was raised."""
    names = {id(module): name for name, module in detector.named_modules()}
    found = ''
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = names.get(id(frame.f_locals.get('self')), found)
    return found or 'model'


def import_package(name: str) -> object:
    """Import an optional package; raises ``UserError`` if it is missing."""
    try:
        return __import__(name)
    except ImportError as error:
        raise UserError(
            f"{name} is missing ({error}); pip install 'stmixer_mm[export]'."
        ) from error
