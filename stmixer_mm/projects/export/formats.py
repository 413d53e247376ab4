"""Files of exported detectors: writing them, and running them."""

import functools
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from zipfile import ZipFile

import numpy as np
import torch

from stmixer_mm.errors import UserError, blame
from stmixer_mm.projects.export.graph import in_float16, in_int8, refused_by_tensorrt
from stmixer_mm.projects.export.tensors import INPUT, Outputs
from stmixer_mm.projects.export.traced import Traced, import_package

KEY = 'stmixer_mm'  # of the metadata in the files
FOREIGN = 'it lacks what tools/export.py writes about a model'
MOST_AT_ONCE = 16  # clips, of a file for any number; engines need a bound


@dataclass
class Metadata:
    """What a file says about itself, as JSON."""

    version: str  # of this package
    classes: list[str] | None  # names of the actions; None: unknown
    shape: list[int | None]  # (T, h, w) of a clip; None: any
    batch: int | None  # clips at once; None: any number
    frame_interval: int  # frames from one of a clip to the next
    mean: list[float]  # by which the file itself normalises, for information
    std: list[float]
    score_thr: float  # person scores from which the config keeps queries
    precision: str = 'fp32'  # of most products
    tubelets: bool = False  # whether scores and boxes are those of each frame
    outputs: list[str] = field(default_factory=lambda: list(Outputs._fields))


Run = Callable[[np.ndarray], list[np.ndarray]]
Clips = Sequence[np.ndarray]  # each (B, 3, T, h, w), uint8


@dataclass
class Format:
    suffix: str
    # Programs, what the file says about itself, its path, clips to measure ranges on.
    write: Callable[[Traced, Metadata, Path, Clips], None]
    load: Callable[[Path], tuple[Run, str]]
    precisions: tuple[str, ...]
    fast: tuple[str, ...] = ()  # those of them that may gain time
    package: str = 'torch'  # what runs it
    beside: str | None = None  # suffix of a second file

    def check_precision(self, precision: str) -> None:
        """Raises ``UserError`` if its files are never in that precision."""
        if precision not in self.precisions:
            raise UserError(
                f'{self.suffix} files are not in {precision}; take --precision '
                f'{" or ".join(self.precisions)}.'
            )


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
        calibration: Clips from which 'int8' learns the ranges of values.

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
    """What runs a file, and what the file says about itself.

    Raises:
        UserError: it is no such file, is damaged, or its runtime is missing.
    """
    remedy = 'export it anew with tools/export.py'
    with blame(f'{file} cannot be loaded', remedy):
        run, text = format_of(file).load(file)
        return run, _metadata(text)


def format_of(file: str | Path | None) -> Format | None:
    """The format of a file, by its suffix; None: it is no exported file."""
    suffix = Path(file or '').suffix.lower()
    return next((one for one in FORMATS.values() if one.suffix == suffix), None)


def files_of(file: Path, form: Format | None) -> list[Path]:
    """All that an exported file, or a checkpoint, consists of; it comes last itself."""
    beside = [file.with_suffix(form.beside)] if form and form.beside else []
    return [*beside, file]


def fast_formats() -> dict[str, Format]:
    """Those of :data:`FORMATS` that may be faster than the model and run here."""
    found = {name: form for name, form in FORMATS.items() if form.fast}
    if not torch.cuda.is_available():
        del found['tensorrt']
    return {name: form for name, form in found.items() if find_spec(form.package)}


def _onnx_model(traced: Traced, metadata: Metadata, calibration: Clips) -> object:
    model = deepcopy(traced.onnx)
    if metadata.precision == 'fp16':
        model = in_float16(model)
    elif metadata.precision == 'int8':
        model = in_int8(model, calibration)
    for node in model.graph.node:
        node.ClearField('metadata_props')  # paths of source files on this machine
    return model


def _write_onnx(
    traced: Traced, metadata: Metadata, file: Path, calibration: Clips
) -> None:
    model = _onnx_model(traced, metadata, calibration)
    model.metadata_props.add(key=KEY, value=_text(metadata))
    file.write_bytes(model.SerializeToString())


def _load_onnx(file: Path) -> tuple[Run, str]:
    session = import_package('onnxruntime').InferenceSession(
        str(file), providers=['CPUExecutionProvider']
    )
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    return lambda clips: session.run(None, {INPUT: clips}), text


def _write_openvino(
    traced: Traced, metadata: Metadata, file: Path, calibration: Clips
) -> None:
    openvino = import_package('openvino')
    is_half = metadata.precision == 'fp16'  # of the weights, left to OpenVINO
    precision = 'fp32' if is_half else metadata.precision
    model = _onnx_model(traced, replace(metadata, precision=precision), calibration)
    with TemporaryDirectory(dir=file.parent) as folder:
        onnx = Path(folder, 'model.onnx')
        onnx.write_bytes(model.SerializeToString())
        model = openvino.convert_model(onnx)
    model.set_rt_info(_text(metadata), [KEY])
    openvino.save_model(model, file, compress_to_fp16=is_half)


@functools.cache
def _openvino() -> object:
    """What loads models, one for the process.

    Each one sets a signal stack. If two are destroyed in the order of their creation,
    the second restores the first one's stack, which is gone: at the next signal with a
    handler, such as Ctrl-C, the process would crash (OpenVINO 2026.4).
    """
    return import_package('openvino').Core()


def _load_openvino(file: Path) -> tuple[Run, str]:
    model = _openvino().read_model(file)
    text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    hint = 'bf16' if _metadata(text).precision == 'bf16' else 'f32'
    compiled = _openvino().compile_model(
        model, 'CPU', {'INFERENCE_PRECISION_HINT': hint}
    )
    lock = Lock()  # all threads share one request

    def run(clips: np.ndarray) -> list[np.ndarray]:
        with lock:
            return list(compiled([clips]).values())

    return run, text


def _write_program(
    traced: Traced, metadata: Metadata, file: Path, calibration: Clips
) -> None:
    program = _program(traced, metadata)
    torch.export.save(program, file, extra_files={f'{KEY}.json': _text(metadata)})


def _write_compiled(
    traced: Traced, metadata: Metadata, file: Path, calibration: Clips
) -> None:
    torch._inductor.aoti_compile_and_package(
        _program(traced, metadata),
        package_path=str(file),
        inductor_configs={
            'freezing': True,
            'aot_inductor.metadata': {KEY: _text(metadata)},
        },
    )


def _program(traced: Traced, metadata: Metadata) -> torch.export.ExportedProgram:
    in_bfloat16 = metadata.precision == 'bf16'
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


def _write_tensorrt(
    traced: Traced, metadata: Metadata, file: Path, calibration: Clips
) -> None:
    """Keeps the metadata as the network's name; engines have no other place for it."""
    if None in metadata.shape:
        raise ValueError('engines are built here for one height and width')
    tensorrt = import_package('tensorrt')
    builder = tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    network.name = _text(metadata)
    parser = tensorrt.OnnxParser(network, builder.logger)
    model = _onnx_model(traced, metadata, calibration)
    if refused := refused_by_tensorrt(model):
        raise ValueError(f'TensorRT does not take {", ".join(refused)}')
    if not parser.parse(model.SerializeToString()):
        raise ValueError(parser.get_error(0).desc())
    config = builder.create_builder_config()
    if metadata.batch is None:
        shapes = ([batch, 3, *metadata.shape] for batch in (1, 1, MOST_AT_ONCE))
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, *shapes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError('TensorRT built no engine; it says above why')
    file.write_bytes(engine)


def _load_tensorrt(file: Path) -> tuple[Run, str]:
    tensorrt = import_package('tensorrt')
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(file.read_bytes())
    if engine is None:
        raise ValueError('it is for another GPU or version of TensorRT, or damaged')
    context = engine.create_execution_context()

    def run(clips: np.ndarray) -> list[np.ndarray]:
        values = {INPUT: torch.from_numpy(clips).cuda()}
        context.set_input_shape(INPUT, clips.shape)
        for name in Outputs._fields:
            shape = tuple(context.get_tensor_shape(name))
            values[name] = torch.empty(shape, device='cuda')
        for name, value in values.items():
            context.set_tensor_address(name, value.data_ptr())
        stream = torch.cuda.current_stream()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return [values[name].cpu().numpy() for name in Outputs._fields]

    return run, engine.name


def _text(metadata: Metadata) -> str:
    return json.dumps(asdict(metadata))


def _metadata(text: str | None) -> Metadata:
    """Raises ``ValueError`` for what :func:`_text` has not made."""
    try:
        found = Metadata(**json.loads(text))
        sizes = [*found.shape, found.batch]
        is_ours = (
            len(sizes) == 4
            and all(size is None or size > 0 for size in sizes)
            and {*map(type, found.classes or ())} <= {str}
        )
    except (TypeError, ValueError):
        is_ours = False
    if not is_ours:
        raise ValueError(FOREIGN)
    return found


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
    'tensorrt': Format(
        '.engine',
        _write_tensorrt,
        _load_tensorrt,
        precisions=('fp32', 'fp16'),
        fast=('fp32', 'fp16'),
        package='tensorrt',
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
