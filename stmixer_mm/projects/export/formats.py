"""Files of exported detectors: written, loaded and run."""

import functools
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import torch

from stmixer_mm.errors import UserError, blame
from stmixer_mm.projects.export.graph import in_float16, in_int8
from stmixer_mm.projects.export.tensors import INPUT, Outputs
from stmixer_mm.projects.export.traced import Traced, import_package

KEY = 'stmixer_mm'  # of the metadata in the files
FOREIGN = 'it was not written by tools/export.py'


@dataclass
class Metadata:
    """Description of a model, as JSON in its file."""

    version: str  # of this package
    classes: list[str] | None  # names of the actions; None: unknown
    shape: list[int | None]  # (T, h, w) of a clip; None: any
    batch: int | None  # clips at once; None: any number
    frame_interval: int  # frames from one of a clip to the next
    mean: list[float]  # of the normalisation inside, for information
    std: list[float]
    score_thr: float  # person scores from which the config keeps queries
    precision: str = 'fp32'  # of most products
    tubelets: bool = False  # whether scores and boxes are those of each frame
    outputs: list[str] = field(default_factory=lambda: list(Outputs._fields))


Run = Callable[[np.ndarray], list[np.ndarray]]
Clips = Sequence[np.ndarray]  # each (B, 3, T, h, w), uint8


class Format(NamedTuple):
    suffix: str
    write: Callable[[Traced, Metadata, Path, Clips], None]
    load: Callable[[Path], tuple[Run, str]]  # its run, its metadata
    precisions: tuple[str, ...]
    fast: tuple[str, ...] = ()  # precisions that may be faster than the model
    package: str = 'torch'  # which runs it
    beside: str | None = None  # suffix of a second file


def write(
    traced: Traced,
    metadata: Metadata,
    file: Path,
    form: Format,
    *,
    calibration: Clips = (),
) -> None:
    """Write a detector.

    Args:
        traced: The detector, for the shape and the batch in the metadata.
        metadata: With the precision to write it in, one of the format's.
        file: With the suffix of the format.
        form: One of :data:`FORMATS`.
        calibration: Clips on which 'int8' measures the ranges of values.

    Raises:
        UserError: a package is missing, or the format lacks what the model needs.
    """
    subject = f'The model cannot be exported to {form.suffix}'
    remedy = f'take another part of the model, or another format ({", ".join(FORMATS)})'
    if None in metadata.shape:
        remedy = f'export for one height and width, or {remedy}'
    with torch.no_grad(), blame(subject, remedy):
        form.write(traced, metadata, file, calibration)


def load(file: Path) -> tuple[Run, Metadata]:
    """Load a file, to run it on the CPU.

    Raises:
        UserError: it is no such file, is damaged, or its runtime is missing.
    """
    with blame(f'{file} cannot be loaded', 'export it anew with tools/export.py'):
        run, text = format_of(file).load(file)
        return run, _read_metadata(text)


def format_of(file: str | Path | None) -> Format | None:
    """The format of a file, by its suffix; None: it is no exported file."""
    suffix = Path(file or '').suffix.lower()
    return next((one for one in FORMATS.values() if one.suffix == suffix), None)


def files_of(file: Path, form: Format | None) -> list[Path]:
    """All files of an exported model (or of a checkpoint: itself), the main one last."""
    beside = [file.with_suffix(form.beside)] if form and form.beside else []
    return [*beside, file]


def list_ways(to: str, precision: str) -> list[tuple[str, str]]:
    """Formats and precisions to try; 'auto' is any that may be fast here.

    Raises:
        UserError: there is none.
    """
    if to == 'auto':
        forms = {n: f for n, f in FORMATS.items() if f.fast and find_spec(f.package)}
    else:
        forms = {to: FORMATS[to]}
    ways = []
    for name, form in forms.items():
        is_auto = 'auto' in (to, precision)
        known = (form.fast if is_auto else ()) or form.precisions
        ways += [(name, one) for one in known if precision in (one, 'auto')]
    if not ways:
        raise UserError(
            f'--to {to} has no --precision {precision} here; take another of the two.'
        )
    return ways


def _onnx_model(traced: Traced, precision: str, clips: Clips) -> object:
    model = deepcopy(traced.onnx)
    if precision == 'fp16':
        model = in_float16(model)
    elif precision == 'int8':
        model = in_int8(model, clips)
    for node in model.graph.node:
        node.ClearField('metadata_props')  # paths of source files on this machine
    return model


def _write_onnx(traced: Traced, about: Metadata, file: Path, clips: Clips) -> None:
    model = _onnx_model(traced, about.precision, clips)
    model.metadata_props.add(key=KEY, value=_to_text(about))
    file.write_bytes(model.SerializeToString())


def _load_onnx(file: Path) -> tuple[Run, str]:
    session = import_package('onnxruntime').InferenceSession(
        str(file), providers=['CPUExecutionProvider']
    )
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    return lambda clips: session.run(None, {INPUT: clips}), text


def _write_openvino(traced: Traced, about: Metadata, file: Path, clips: Clips) -> None:
    openvino = import_package('openvino')
    is_half = about.precision == 'fp16'  # of the weights, left to OpenVINO
    precision = 'fp32' if is_half else about.precision
    model = _onnx_model(traced, precision, clips)
    with TemporaryDirectory(dir=file.parent) as folder:
        onnx = Path(folder, 'model.onnx')
        onnx.write_bytes(model.SerializeToString())
        model = openvino.convert_model(onnx)
    model.set_rt_info(_to_text(about), [KEY])
    openvino.save_model(model, file, compress_to_fp16=is_half)


@functools.cache
def _openvino() -> object:
    """One ``Core`` for the process.

    Each one sets a signal stack. If two are destroyed in the order of their creation,
    the second restores the first one's stack, which is gone: at the next signal with a
    handler, such as Ctrl-C, the process would crash (OpenVINO 2026.4).
    """
    return import_package('openvino').Core()


def _load_openvino(file: Path) -> tuple[Run, str]:
    model = _openvino().read_model(file)
    text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    hint = 'bf16' if _read_metadata(text).precision == 'bf16' else 'f32'
    compiled = _openvino().compile_model(
        model, 'CPU', {'INFERENCE_PRECISION_HINT': hint}
    )
    lock = Lock()  # all threads share one request

    def run(clips: np.ndarray) -> list[np.ndarray]:
        with lock:
            return list(compiled([clips]).values())

    return run, text


def _write_program(traced: Traced, about: Metadata, file: Path, clips: Clips) -> None:
    extra = {f'{KEY}.json': _to_text(about)}
    torch.export.save(_program(traced, about), file, extra_files=extra)


def _write_compiled(traced: Traced, about: Metadata, file: Path, clips: Clips) -> None:
    text = {KEY: _to_text(about)}
    torch._inductor.aoti_compile_and_package(
        _program(traced, about),
        package_path=str(file),
        inductor_configs={'freezing': True, 'aot_inductor.metadata': text},
    )


def _program(traced: Traced, about: Metadata) -> torch.export.ExportedProgram:
    in_bfloat16 = about.precision == 'bf16'
    return traced.program_in_bfloat16 if in_bfloat16 else traced.program


def _load_program(file: Path) -> tuple[Run, str]:
    with ZipFile(file) as archive:
        names = archive.namelist()
    if any('/aotinductor/' in name for name in names):
        module = torch._inductor.aoti_load_package(str(file))
        text = module.get_metadata().get(KEY)
    elif any(name.endswith(f'/{KEY}.json') for name in names):
        extra = {f'{KEY}.json': ''}
        module = torch.export.load(file, extra_files=extra).module()
        text = extra[f'{KEY}.json']
    else:
        raise ValueError(FOREIGN)

    def run(clips: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad(), torch.autocast('cpu', enabled=False):
            return [each.numpy() for each in module(torch.from_numpy(clips))]

    return run, text


def _to_text(metadata: Metadata) -> str:
    return json.dumps(asdict(metadata))


def _read_metadata(text: str | None) -> Metadata:
    try:
        return Metadata(**json.loads(text))
    except (TypeError, ValueError):
        raise ValueError(FOREIGN) from None


FORMATS = {
    'onnx': Format(
        '.onnx',
        _write_onnx,
        _load_onnx,
        precisions=('fp32', 'fp16', 'int8'),
        fast=('fp32', 'int8'),
        package='onnxruntime',
    ),
    'openvino': Format(
        '.xml',
        _write_openvino,
        _load_openvino,
        precisions=('fp32', 'fp16', 'bf16', 'int8'),
        fast=('fp32', 'bf16', 'int8'),
        package='openvino',
        beside='.bin',
    ),
    'torch': Format('.pt2', _write_program, _load_program, precisions=('fp32', 'bf16')),
    'inductor': Format(
        '.pt2',
        _write_compiled,
        _load_program,
        precisions=('fp32', 'bf16'),
        fast=('fp32', 'bf16'),
    ),
}
