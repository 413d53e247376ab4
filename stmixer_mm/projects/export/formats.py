"""Files of exported detectors: written, loaded and run."""

import functools
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch

from stmixer_mm.errors import blame
from stmixer_mm.projects.export.graphs import (
    check_graph,
    read_onnx,
    read_openvino,
    without_paths,
)
from stmixer_mm.projects.export.metadata import KEY, Metadata
from stmixer_mm.projects.export.tensors import INPUT
from stmixer_mm.projects.export.traced import Traced, import_package

Run = Callable[[np.ndarray], list[np.ndarray]]


class Format(NamedTuple):
    suffix: str
    write: Callable[[Traced, Metadata, Path], None]
    load: Callable[[Path], tuple[Run, Metadata]]
    precisions: tuple[str, ...]


def write(traced: Traced, metadata: Metadata, file: Path, form: Format) -> None:
    """Write a detector.

    Args:
        traced: The detector, for the shape and the batch in the metadata.
        metadata: With the precision to write it in, one of the format's.
        file: With the suffix of the format.
        form: One of :data:`FORMATS`.

    Raises:
        UserError: a package is missing, or the format lacks what the model needs.
    """
    remedy = f'take another part of the model, or another format ({", ".join(FORMATS)})'
    if None in metadata.shape:
        remedy = f'export for one height and width, or {remedy}'
    subject = f'The model cannot be exported to {form.suffix}'
    with torch.no_grad(), blame(subject, remedy):
        form.write(traced, metadata, file)


def load(file: Path) -> tuple[Run, Metadata]:
    """Load a file, to run it on the CPU.

    Raises:
        UserError: tools/export.py did not write it, it is damaged, or its runtime is
            missing.
    """
    form = {form.suffix: form for form in FORMATS.values()}[file.suffix.lower()]
    with blame(f'{file} cannot be loaded', 'export it anew with tools/export.py'):
        return form.load(file)


def _write_onnx(traced: Traced, about: Metadata, file: Path) -> None:
    model = without_paths(deepcopy(traced.onnx))
    model.metadata_props.add(key=KEY, value=about.to_text())
    file.write_bytes(model.SerializeToString())


def _load_onnx(file: Path) -> tuple[Run, Metadata]:
    model = import_package('onnx').load(file, load_external_data=False)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    about = Metadata.from_text(texts.get(KEY))
    check_graph(read_onnx(model), about)
    runtime = import_package('onnxruntime')
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, too
    providers = ['CPUExecutionProvider']
    session = runtime.InferenceSession(str(file), options, providers=providers)
    return lambda clips: session.run(None, {INPUT: clips}), about


def _write_openvino(traced: Traced, about: Metadata, file: Path) -> None:
    openvino = import_package('openvino')
    model = without_paths(deepcopy(traced.onnx))
    with TemporaryDirectory() as folder:
        onnx = Path(folder, 'model.onnx')
        onnx.write_bytes(model.SerializeToString())
        model = openvino.convert_model(onnx)
    model.set_rt_info(about.to_text(), [KEY])
    openvino.save_model(model, file, compress_to_fp16=False)


@functools.cache
def _openvino() -> object:
    """The ``Core`` of the process.

    Each one sets a signal stack. If two are destroyed in the order of their creation,
    the second restores the first one's stack, which is gone: at the next signal with a
    handler, such as Ctrl-C, the process would crash (OpenVINO 2026.4).
    """
    return import_package('openvino').Core()


def _load_openvino(file: Path) -> tuple[Run, Metadata]:
    model = _openvino().read_model(file)
    text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    about = Metadata.from_text(text)
    check_graph(read_openvino(model), about)
    hint = dict(INFERENCE_PRECISION_HINT='bf16' if about.precision == 'bf16' else 'f32')
    compiled = _openvino().compile_model(model, 'CPU', hint)
    lock = Lock()  # all threads share one request

    def run(clips: np.ndarray) -> list[np.ndarray]:
        with lock:
            return list(compiled([clips]).values())

    return run, about


FORMATS = {
    'onnx': Format('.onnx', _write_onnx, _load_onnx, ('fp32',)),
    'openvino': Format('.xml', _write_openvino, _load_openvino, ('fp32', 'bf16')),
}
