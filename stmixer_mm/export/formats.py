"""Files of exported detectors: writing them, and running them."""

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from stmixer_mm.errors import UserError, blame
from stmixer_mm.export.tensors import INPUT, Outputs, TensorDetector

KEY = 'stmixer_mm'  # of the metadata in the files
OPSET = 20  # the first with GridSample as PyTorch computes it
INSTALL = "pip install 'stmixer_mm[export]'"


@dataclass
class Metadata:
    """What a file says of itself, as JSON."""

    version: str  # of this package
    classes: list[str] | None  # names of the actions; None: unknown
    shape: list[int]  # (T, h, w) of a clip
    batch: int | None  # clips at once; None: any number
    frame_interval: int  # frames from one of a clip to the next
    mean: list[float]  # by which the file normalises, for those who wonder
    std: list[float]
    score_thr: float  # person scores from which the config keeps queries
    outputs: list[str] = field(default_factory=lambda: list(Outputs._fields))


Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclass
class Format:
    suffix: str
    write: Callable[[torch.export.ExportedProgram, Metadata, Path, bool], None]
    load: Callable[[Path], tuple[Run, str]]
    beside: str | None = None  # suffix of a second file
    has_half: bool = False  # whether weights may be float16


def write(
    detector: TensorDetector, metadata: Metadata, file: Path, *, half: bool = False
) -> None:
    """Write a detector.

    Args:
        file: With the suffix of one of :data:`FORMATS`.
        half: Keep the weights in float16; OpenVINO alone.

    Raises:
        UserError: a package is missing, or the format has not what the model or
            ``half`` needs.
    """
    form = format_of(file)
    if half and not form.has_half:
        raise UserError(f'{form.suffix} files keep float32; leave --precision out.')
    frames, height, width = metadata.shape
    clips = torch.zeros(
        metadata.batch or 2, 3, frames, height, width, dtype=torch.uint8
    )
    dynamic = None
    if metadata.batch is None:
        dynamic = ({0: torch.export.Dim('batch', min=1, max=4096)},)
    remedy = f'take another part of the model, or another format ({", ".join(FORMATS)})'
    with torch.no_grad(), blame(f'{file} cannot be exported', remedy):
        detector(clips)  # what parts keep of their first call is to be real tensors
        program = torch.export.export(
            detector, (clips,), dynamic_shapes=dynamic, strict=False
        )
        form.write(program, metadata, file, half)


def load(file: Path) -> tuple[Run, Metadata]:
    """What runs a file, and what the file says of itself.

    Raises:
        UserError: it is no such file, is damaged, or its runtime is missing.
    """
    remedy = 'export it anew with tools/export.py'
    with blame(f'{file} cannot be loaded', remedy):
        run, text = format_of(file).load(file)
        return run, Metadata(**json.loads(text))


def format_of(file: str | Path) -> Format | None:
    suffix = Path(file).suffix.lower()
    return next((one for one in FORMATS.values() if one.suffix == suffix), None)


def is_exported(path: str | Path | None) -> bool:
    """Whether it is run in the place of a checkpoint: a program of PyTorch is not."""
    return format_of(path or '') in (FORMATS['onnx'], FORMATS['openvino'])


def _import(name: str, file: Path) -> object:
    try:
        return __import__(name)
    except ImportError as error:
        raise UserError(f'{file} needs {name} ({error}); {INSTALL}.') from error


def _write_onnx(
    program: torch.export.ExportedProgram, metadata: Metadata, file: Path, half: bool
) -> None:
    for package in ('onnx', 'onnxscript'):
        _import(package, file)
    for name in ('torch.onnx', 'onnxscript', 'onnx_ir'):  # which tell of their ways
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        onnx = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=metadata.outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    onnx.model.metadata_props[KEY] = json.dumps(asdict(metadata))
    onnx.save(str(file), external_data=False)


def _load_onnx(file: Path) -> tuple[Run, str]:
    session = _import('onnxruntime', file).InferenceSession(
        str(file), providers=['CPUExecutionProvider']
    )
    text = session.get_modelmeta().custom_metadata_map[KEY]
    return lambda clips: session.run(None, {INPUT: clips}), text


def _write_openvino(
    program: torch.export.ExportedProgram, metadata: Metadata, file: Path, half: bool
) -> None:
    openvino = _import('openvino', file)
    with TemporaryDirectory(dir=file.parent) as folder:
        onnx = Path(folder, 'model.onnx')
        _write_onnx(program, metadata, onnx, half=False)
        model = openvino.convert_model(onnx)
    model.set_rt_info(json.dumps(asdict(metadata)), [KEY])
    openvino.save_model(model, file, compress_to_fp16=half)


def _load_openvino(file: Path) -> tuple[Run, str]:
    openvino = _import('openvino', file)
    model = openvino.Core().read_model(file)
    text = model.get_rt_info([KEY]).astype(str)
    compiled = openvino.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda clips: list(compiled([clips]).values()), text


def _write_program(
    program: torch.export.ExportedProgram, metadata: Metadata, file: Path, half: bool
) -> None:
    text = json.dumps(asdict(metadata))
    torch.export.save(program, file, extra_files={f'{KEY}.json': text})


def _load_program(file: Path) -> tuple[Run, str]:
    extra = {f'{KEY}.json': ''}
    module = torch.export.load(file, extra_files=extra).module()

    def run(clips: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [each.numpy() for each in module(torch.from_numpy(clips))]

    return run, extra[f'{KEY}.json']


FORMATS = {
    'onnx': Format('.onnx', _write_onnx, _load_onnx),
    'openvino': Format('.xml', _write_openvino, _load_openvino, '.bin', has_half=True),
    'torch': Format('.pt2', _write_program, _load_program),
}
