"""Graphs of exported models, checked before a runtime loads them.

A file from elsewhere may hold another model, or be made to exhaust the machine.
"""

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from stmixer_mm.projects.export.metadata import FOREIGN, Metadata
from stmixer_mm.projects.export.tensors import INPUT, Outputs

# Elements of the largest tensor: a fixed number, and some for each element of a clip.
MAX_ELEMENTS, MAX_PER_INPUT = 2**26, 256
MAX_QUERIES = 10_000
# Operators of unbounded time or size; tracing leaves none.
UNBOUNDED = frozenset(
    ('If', 'Loop', 'Scan', 'SequenceMap', 'SparseTensor', 'TensorIterator')
)


class Port(NamedTuple):
    """An input or an output."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]  # None: any


class Graph(NamedTuple):
    inputs: list[Port]
    outputs: list[Port]
    operators: set[str]
    largest: int  # elements of the largest tensor, as far as sizes are known


def check_graph(graph: Graph, about: Metadata) -> None:
    """Raise ``ValueError`` unless a graph is that of a detector of such metadata."""
    clips = Port(INPUT, 'uint8', (about.batch, 3, *about.shape))
    if graph.inputs != [clips]:
        raise ValueError(f'{FOREIGN}: its inputs are {graph.inputs}, not {[clips]}')
    outputs = {(port.name, port.dtype): port.shape for port in graph.outputs}
    if [*outputs] != [(name, 'float32') for name in Outputs._fields]:
        raise ValueError(f'{FOREIGN}: its outputs are {[*outputs]}')
    check_shapes([*outputs.values()], about)
    check_bounds(graph, about)


def check_bounds(graph: Graph, about: Metadata) -> None:
    """Raise ``ValueError`` if a graph may take more than a detector of such metadata."""
    unknown_operators = {
        operator
        for operator in graph.operators
        if '.' in operator or operator in UNBOUNDED
    }
    if unknown_operators:
        raise ValueError(f'{FOREIGN}: it has {", ".join(sorted(unknown_operators))}')
    clip = about.batch, 3, *about.shape
    if graph.largest > MAX_ELEMENTS + MAX_PER_INPUT * prod(size or 1 for size in clip):
        raise ValueError(f'one of its tensors has {graph.largest:.1e} elements')


def check_shapes(shapes: Iterable[tuple[int | None, ...]], about: Metadata) -> None:
    """Raise ``ValueError`` unless outputs have such shapes; None is any size."""
    persons, actions, bboxes, vectors = shapes
    queries = persons[:2]
    in_frames = (*queries, about.shape[0]) if about.tubelets else queries
    num_actions = actions[-1] if about.classes is None else len(about.classes)
    is_same = (
        persons == in_frames
        and actions in {(*queries, num_actions), (*in_frames, num_actions)}
        and bboxes == (*in_frames, 4)
        and vectors[:-1] == queries
        and (queries[-1] or 0) <= MAX_QUERIES
    )
    if not is_same:
        named = Outputs(persons, actions, bboxes, vectors)
        raise ValueError(f'{FOREIGN}: its outputs have the shapes {named}')


def without_paths(model: object) -> object:
    """A ``ModelProto`` that names no source files of this machine."""
    for node in model.graph.node:
        node.ClearField('metadata_props')
    return model


def read_onnx(model: object) -> Graph:
    """The graph of a ``ModelProto``, which loses its weights."""
    from onnx import shape_inference
    from onnx.helper import tensor_dtype_to_np_dtype

    def port(value: object) -> Port:
        kind = value.type.tensor_type
        dims = [dim.dim_value if dim.dim_value else None for dim in kind.shape.dim]
        return Port(value.name, tensor_dtype_to_np_dtype(kind.elem_type).name, (*dims,))

    for weight in model.graph.initializer:
        if len(weight.raw_data) > 1024:  # not a shape
            weight.ClearField('raw_data')
    del model.graph.value_info[:]  # which may be wrong
    nodes = [node for part in (model.graph, *model.functions) for node in part.node]
    operators = {f'{node.domain}.{node.op_type}'.lstrip('.') for node in nodes}
    if model.graph.sparse_initializer:
        operators.add('SparseTensor')
    graph = shape_inference.infer_shapes(model).graph
    return Graph(
        [port(value) for value in graph.input],
        [port(value) for value in graph.output],
        operators,
        max(
            prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
            for value in (*graph.value_info, *graph.input)
        ),
    )


def read_openvino(model: object) -> Graph:
    """The graph of an ``openvino.Model``."""

    def port(node: object) -> Port:
        dims = [None if dim.is_dynamic else len(dim) for dim in node.partial_shape]
        return Port(node.any_name, node.element_type.to_dtype().name, (*dims,))

    operators = model.get_ordered_ops()
    return Graph(
        [port(node) for node in model.inputs],
        [port(node) for node in model.outputs],
        {operator.get_type_name() for operator in operators},
        max(
            prod(size or 1 for size in node.partial_shape.get_min_shape())
            for operator in operators
            for node in operator.outputs()
        ),
    )
