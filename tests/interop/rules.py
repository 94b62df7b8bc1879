"""The rules by which other ONNX clients can read a graph."""

import collections.abc
import pathlib

import onnx

STANDARD_DOMAINS = ("", "ai.onnx")
NEWEST_OPSET_BY_DEFAULT = 21
# Clients such as transformers.js 3 read IR version 10; opset 23, which is only written when asked for, came with 11.
NEWEST_IR_VERSION = 10
NEWEST_IR_VERSION_OF_OPSET_23 = 11
# External data is mapped: its pieces begin at multiples of a cache line.
ALIGNMENT = 64
# Operators that broadcast: a constant of one element beside a larger operand is a scalar, and scalars have rank 0.
BROADCASTING = {
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Or",
    "Pow", "Sub", "Where", "Xor",
}  # fmt: skip


def problems(
    model: onnx.ModelProto,
    path: pathlib.Path,
    requested_opset: int | None,
    foreign_operators: frozenset[tuple[str, str]] = frozenset(),
) -> list[str]:
    """Every rule that the model breaks. `path` is where it was loaded from, without its external data, and
    `foreign_operators` are domains and names of those it may use that are not standard."""
    nodes = list(nodes_of(model.graph))
    return [
        *domain_problems(model, nodes, foreign_operators),
        *version_problems(model, requested_opset),
        *scalar_problems(model),
        *external_data_problems(list(initializers_of(model.graph)), path),
    ]


def nodes_of(graph: onnx.GraphProto) -> collections.abc.Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs too."""
    for node in graph.node:
        yield node
        for subgraph in subgraphs_of(node):
            yield from nodes_of(subgraph)


def initializers_of(graph: onnx.GraphProto) -> collections.abc.Iterator[onnx.TensorProto]:
    """All initializers, those of subgraphs too."""
    yield from graph.initializer
    for node in graph.node:
        for subgraph in subgraphs_of(node):
            yield from initializers_of(subgraph)


def subgraphs_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for attribute in node.attribute for graph in [attribute.g, *attribute.graphs] if graph.node]


def domain_problems(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], allowed: frozenset[tuple[str, str]]
) -> list[str]:
    used = {(node.domain, node.op_type) for node in nodes if node.domain not in STANDARD_DOMAINS}
    foreign = [f"{domain}.{name}" for domain, name in sorted(used - allowed)]
    domains = {*STANDARD_DOMAINS, *(domain for domain, _ in allowed)}
    imported = [opset.domain for opset in model.opset_import if opset.domain not in domains]
    found = [f"operator {name} is not standard" for name in foreign]
    found += [f"the operator set {domain} is imported" for domain in imported]
    if model.functions:
        found.append(f"{len(model.functions)} functions are defined")
    return found


def version_problems(model: onnx.ModelProto, requested_opset: int | None) -> list[str]:
    versions = [opset.version for opset in model.opset_import if opset.domain in STANDARD_DOMAINS]
    if len(versions) != 1:
        return [f"the standard operator set is imported {len(versions)} times"]
    opset = versions[0]
    found = []
    if requested_opset is None and opset > NEWEST_OPSET_BY_DEFAULT:
        found.append(f"opset {opset} is newer than {NEWEST_OPSET_BY_DEFAULT}, and nobody asked for it")
    if requested_opset is not None and opset != requested_opset:
        found.append(f"opset {opset} where {requested_opset} was asked for")
    newest = NEWEST_IR_VERSION_OF_OPSET_23 if opset >= 23 else NEWEST_IR_VERSION
    if model.ir_version > newest:
        found.append(f"IR version {model.ir_version} is newer than {newest}")
    return found


def scalar_problems(model: onnx.ModelProto) -> list[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: shape_of(value) for value in [*graph.input, *graph.value_info, *graph.output]}
    constants = {tensor.name: list(tensor.dims) for tensor in initializers_of(graph)}
    for node in nodes_of(graph):
        if node.op_type == "Constant":
            constants |= {node.output[0]: list(item.t.dims) for item in node.attribute if item.name == "value"}
    shapes |= constants
    return [
        f"{name} in {node.op_type} {node.name} is a scalar of shape {constants[name]}"
        for node in nodes_of(graph)
        if node.op_type in BROADCASTING
        for name in node.input
        if constants.get(name) and all(size == 1 for size in constants[name])
        # beside operands of its own shape it is a vector of length one
        if any(shapes.get(other) != constants[name] for other in node.input)
    ]


def shape_of(value: onnx.ValueInfoProto) -> list[int | str] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [size.dim_value if size.HasField("dim_value") else size.dim_param for size in tensor.shape.dim]


def external_data_problems(initializers: list[onnx.TensorProto], path: pathlib.Path) -> list[str]:
    """Every external tensor lies in the one file that clients look for: beside the graph, named after it."""
    expected = f"{path.name}_data"
    data = path.with_name(expected)
    size = data.stat().st_size if data.is_file() else 0
    found = []
    for tensor in initializers:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        if entries.get("location") != expected:
            found.append(f"{tensor.name} lies in {entries.get('location')!r}, not in {expected!r}")
        elif offset % ALIGNMENT:
            found.append(f"{tensor.name} begins at {offset}, no multiple of {ALIGNMENT}")
        elif offset + length > size:
            found.append(f"{tensor.name} ends at {offset + length}, past the {size} bytes of {expected}")
    return found
