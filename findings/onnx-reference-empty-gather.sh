#!/usr/bin/env bash
# The reference evaluator of onnx 1.22.0 (PyPI) drops dimensions where Gather is given no index.
# A good guess: Gather of a matrix [4, 3] by zero indices is [0, 3], which is what the operator's definition gives and what
# ONNX Runtime 1.32.0 returns. Seen: shape [0], so that the MatMul after it fails. A mixture of experts gathers the
# tokens of each expert, and an expert without a token is no rare case.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.22.0 onnxruntime==1.32.0 numpy==2.4.6 ml_dtypes==0.6.0
found=$("$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

graph = helper.make_graph(
    [helper.make_node("Gather", ["x", "rows"], ["chosen"], axis=0)],
    "gather",
    [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3]),
        helper.make_tensor_value_info("rows", TensorProto.INT64, ["count"]),
    ],
    [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["count", 3])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
session = onnxruntime.InferenceSession(model.SerializeToString())
print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
for count in (1, 0):
    feeds = {"x": numpy.ones((4, 3), numpy.float32), "rows": numpy.zeros(count, numpy.int64)}
    [reference] = ReferenceEvaluator(model).run(None, feeds)
    [runtime] = session.run(None, feeds)
    print(f"{count} indices: onnx.reference {list(reference.shape)}, onnxruntime {list(runtime.shape)}")
PYTHON
)
expected='onnx 1.22.0 onnxruntime 1.32.0
1 indices: onnx.reference [1, 3], onnxruntime [1, 3]
0 indices: onnx.reference [0], onnxruntime [0, 3]'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
