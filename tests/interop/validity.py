"""Whether the onnx package accepts a graph: its checker in full, and strict shape inference."""

import pathlib

import onnx


def problems(path: pathlib.Path, is_standard: bool = True) -> list[str]:
    """What is wrong with the model at `path`; its external data lies beside it. Of operators that are not standard the
    onnx package knows no shapes."""
    try:
        onnx.checker.check_model(str(path), full_check=is_standard)
        if not is_standard:
            return []
        model = onnx.load(path, load_external_data=False)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return [f"{type(error).__name__}: {error}"]
    return [f"no shape could be inferred for {name}" for name in sorted(values_without_rank(inferred.graph))]


def values_without_rank(graph: onnx.GraphProto) -> set[str]:
    """Names of values whose number of dimensions is unknown."""
    known = {value.name for value in [*graph.value_info, *graph.output] if value.type.tensor_type.HasField("shape")}
    return {name for node in graph.node for name in node.output if name} - known
