#!/usr/bin/env bash
# onnxruntime 1.32.0 (PyPI) takes no bfloat16 array that onnx 1.22.0 makes, and gives none back.
# onnx.numpy_helper.to_array returns a NumPy array of ml_dtypes.bfloat16. A good guess: the runtime, whose API is NumPy
# too and whose graphs have bfloat16 inputs, takes it. Seen: run() and OrtValue.numpy() refuse the type. What works is an
# OrtValue from the same bytes as uint16, with the element type said.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.22.0 onnxruntime==1.32.0 numpy==2.4.6 ml_dtypes==0.6.0
found=$("$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

values = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [2]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
session = onnxruntime.InferenceSession(model.SerializeToString())
array = numpy_helper.to_array(helper.make_tensor("x", TensorProto.BFLOAT16, [2], [1.5, 2.0]))

def outcome(action):
    try:
        return action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
print("to_array:", array.dtype)
print("run:", outcome(lambda: session.run(None, {"x": array})))
value = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(numpy.uint16), TensorProto.BFLOAT16)
[result] = session.run_with_ort_values(None, {"x": value})
print("run_with_ort_values:", result.data_type())
print("numpy:", outcome(result.numpy))
PYTHON
)
expected='onnx 1.22.0 onnxruntime 1.32.0
to_array: bfloat16
run: RuntimeError: Numpy_type 256 can'\''t be converted to MLDataType.
run_with_ort_values: tensor(bfloat16)
numpy: RuntimeError: No corresponding Numpy type for Tensor Type. bfloat16'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
