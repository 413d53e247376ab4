"""A detector as a program, from which files of all formats are made."""

import logging
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from copy import deepcopy
from functools import cached_property
from io import StringIO

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stmixer_mm.errors import UserError
from stmixer_mm.projects.export.tensors import (
    INPUT,
    InBfloat16,
    Outputs,
    TensorDetector,
)

OPSET = 20  # the first with GridSample as PyTorch computes it
SMALLEST = 33  # dynamic height and width: two cells at a stride of 32


class Traced:
    """Programs of a detector.

    Args:
        detector: What to trace; a copy of it is changed.
        shape: (T, h, w) of the clips.
        batch: Clips at once; None: any number.
        any_size: Whether height and width are dynamic too.
        cut: Cuts the path of a model into steps for frames and parts for clips.

    Attributes:
        shape: As given, with None for a dynamic height and width.
        copy: Of the detector.
    """

    def __init__(
        self,
        detector: TensorDetector,
        shape: Sequence[int],
        batch: int | None,
        *,
        any_size: bool = False,
        cut: Callable | None = None,
    ) -> None:
        if any_size and min(shape[1:]) < SMALLEST:
            raise UserError(
                f'--dynamic size needs at least {SMALLEST} pixels of height and width, '
                f'but clips are {shape[1]}x{shape[2]}; give a larger --shape or video.'
            )
        self.detector = detector
        self.shape = [shape[0], None, None] if any_size else [*shape]
        self.batch = batch
        self.cut = cut
        self.copy = deepcopy(detector)
        self._clips = torch.zeros(batch or 2, 3, *shape, dtype=torch.uint8)
        self._dynamic = {} if batch else {0: Dim('batch', min=1, max=4096)}
        if any_size:
            for dim, name in (3, 'height'), (4, 'width'):
                self._dynamic[dim] = Dim(name, min=SMALLEST, max=8192)

    def program(self, precision: str = 'fp32') -> ExportedProgram:
        """The program for PyTorch, in 'fp32' or 'bf16'."""
        in_bfloat16 = precision == 'bf16'
        detector = InBfloat16(self.copy) if in_bfloat16 else self.copy
        return self._trace(detector, self._clips, self._dynamic, 'embedding_bag')

    @cached_property
    def onnx(self) -> object:
        """A ``ModelProto``; its nodes name the modules that they belong to."""
        names = [INPUT], Outputs._fields
        return self.to_onnx(self.copy, self._clips, self._dynamic, *names)

    def to_onnx(
        self,
        module: nn.Module,
        inputs: Tensor | list[Tensor],
        dynamic: dict[int, Dim] | list[dict[int, Dim]],
        input_names: Sequence[str],
        output_names: Sequence[str] | None = None,
    ) -> object:
        """A ``ModelProto`` of a module of one argument, with its dynamic axes."""
        for package in ('onnx', 'onnxscript'):
            import_package(package)
        for name in ('torch.onnx', 'onnxscript', 'onnx_ir'):  # which log each step
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                onnx = torch.onnx.export(
                    self._trace(module, inputs, dynamic, 'grid_means'),
                    input_names=input_names,
                    output_names=output_names,
                    opset_version=OPSET,
                    dynamic_shapes=(_names(dynamic),),
                    dynamo=True,
                    verbose=False,
                )
            except torch.onnx.OnnxExporterError as error:  # it only names the step
                raise error.__cause__ or error from None
        return onnx.model_proto

    def _trace(
        self, module: nn.Module, inputs: object, dynamic: object, sampling_backend: str
    ) -> ExportedProgram:
        decoder = self.copy.model.decoder
        if hasattr(decoder, 'sampling_backend'):
            decoder.sampling_backend = sampling_backend
        module(inputs)  # so that parts keep real tensors from a first call
        try:
            with redirect_stderr(StringIO()):  # where it prints all that it has traced
                return torch.export.export(
                    module,
                    (inputs,),
                    dynamic_shapes=(dynamic,),
                    strict=False,
                )
        except Exception as error:
            error.part = _find_part(error, self.copy)
            raise


def _names(dynamic: dict[int, Dim] | list[dict[int, Dim]]) -> object:
    """The same with the dimensions' names."""
    if isinstance(dynamic, list):
        return [*map(_names, dynamic)]
    return {axis: dim.__name__ for axis, dim in dynamic.items()}


def _find_part(error: Exception, detector: nn.Module) -> str:
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
