#!/usr/bin/env bash
# OpenVINO 2026.4.1 (PyPI), CPU: whether a mixture of experts is computed by the operator GatherMatmul, which multiplies a token
# with the experts that it chose only, depends on how the same activation is written.
# A good guess: opset13.swish(x) is x * sigmoid(x), so that both graphs compile to the same operators. Seen: the Python function
# adds the operand beta, a constant 1; the pattern expects a swish with one operand, into which only the product is fused. With
# opset13.swish every token is multiplied with every expert, without a message.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 numpy==2.4.6
found=$("$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
from importlib.metadata import version

import numpy
import openvino
import openvino.opset13 as op

EXPERTS, HIDDEN, WIDTH, GROUP, CHOSEN = 4, 64, 128, 32, 2
random = numpy.random.default_rng(0)


def integers(*values):
    return op.constant(numpy.array(values, numpy.int64))


def weight(outputs, inputs, codes):
    shape = [EXPERTS, outputs, inputs // GROUP, GROUP]
    codes = openvino.op.Constant(openvino.Tensor(codes, shape, openvino.Type.u4), shared_memory=False)
    centred = op.subtract(op.convert(codes, "f16"), op.constant(numpy.array([8], numpy.float16)))
    scaled = op.multiply(centred, op.constant(numpy.full([*shape[:3], 1], 0.01, numpy.float16)))
    return op.convert(op.reshape(scaled, integers(EXPERTS, outputs, inputs), False), "f32")


codes = [random.integers(0, 256, EXPERTS * HIDDEN * WIDTH // 2, numpy.uint8) for _ in range(3)]


def mixture(activate):
    x = op.parameter([1, -1, HIDDEN], numpy.float32, "x")
    chosen = op.parameter([-1, CHOSEN], numpy.int64, "chosen")
    gates = op.parameter([-1, CHOSEN], numpy.float32, "gates")
    tokens = op.gather(op.shape_of(chosen), integers(0), op.constant(0))
    tiles = op.tile(op.reshape(x, integers(-1, HIDDEN), False), integers(EXPERTS, 1))
    tiles = op.reshape(tiles, integers(EXPERTS, -1, HIDDEN), False)
    gate = op.matmul(tiles, weight(WIDTH, HIDDEN, codes[0]), False, True)
    up = op.matmul(tiles, weight(WIDTH, HIDDEN, codes[1]), False, True)
    down = op.matmul(op.multiply(activate(gate), up), weight(HIDDEN, WIDTH, codes[2]), False, True)
    down = op.reshape(down, op.concat([integers(EXPERTS, 1), tokens, integers(HIDDEN)], 0), False)
    zeros = op.broadcast(op.constant(numpy.float32(0)), op.concat([tokens, integers(EXPERTS)], 0))
    spread = op.transpose(op.scatter_elements_update(zeros, chosen, gates, op.constant(1)), integers(1, 0))
    spread = op.reshape(spread, op.concat([integers(EXPERTS, 1), tokens], 0), False)
    y = op.reduce_sum(op.multiply(down, op.unsqueeze(spread, op.constant(3))), integers(0), False)
    return openvino.Model([y], [x, chosen, gates], "mixture")


print("openvino", version("openvino"))
inputs = [
    random.normal(size=(1, 3, HIDDEN)).astype(numpy.float32),
    numpy.array([[0, 1], [2, 0], [3, 1]]),
    numpy.full((3, CHOSEN), 0.5, numpy.float32),
]
results = []
for name, activate in {"x * sigmoid(x)": lambda x: op.multiply(x, op.sigmoid(x)), "swish(x)": op.swish}.items():
    model = mixture(activate)
    operands = [node.get_input_size() for node in model.get_ops() if node.get_type_name() == "Swish"]
    compiled = openvino.Core().compile_model(model, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
    results.append(compiled(inputs)[0])
    kinds = {str(node.get_rt_info()["layerType"].value) for node in compiled.get_runtime_model().get_ops()}
    print(f"{name}: operands of Swish {operands}, GatherMatmul {'GatherMatmul' in kinds}")
difference = numpy.abs(results[0] - results[1]).max() / numpy.abs(results[1]).max()
print("same results:", bool(difference < 1e-5))
PYTHON
)
expected='openvino 2026.4.1
x * sigmoid(x): operands of Swish [], GatherMatmul True
swish(x): operands of Swish [2], GatherMatmul False
same results: True'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
